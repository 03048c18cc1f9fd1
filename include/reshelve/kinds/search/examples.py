"""The files of a search ranker: each query with what was chosen under it, over the whole catalogue."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from reshelve.config.ranker import Ranker
from reshelve.examples import choices
from reshelve.examples.drafts import Draft, SourceContents
from reshelve.examples.formats import CATALOGUE_EXAMPLES, HOLDOUT, HoldoutQuery, write_rows
from reshelve.examples.readers import to_draw
from reshelve.examples.tokens import encode, load_tokenizer
from reshelve.examples.workspace import Workspace, reading
from reshelve.kind import Examples
from reshelve.kinds.search import searches, size
from reshelve.model.graph_size import GraphTables

_SEARCHED = 0.2  # of the choices follow a query: the source is one of searches


class SearchExamples(Examples):
    """From events with a query."""

    def expected(self, ranker: Ranker) -> str:
        return "searches (query and item)"

    def write(self, work: Workspace) -> dict[str, int]:
        ranker = work.run.ranker
        tokenizer = load_tokenizer(work.directory / "tokenizer.json", ranker.model.max_length)

        def rows(part: str, limit: int) -> Iterator[dict[str, Any]]:
            misspelt = reading(ranker, part)
            found = list(searches.choices(work.connection, work.catalogue, part, limit))
            encodings = encode(tokenizer, (misspelt.of(choice.query) for choice in found))
            return (choice.row(encoding.ids) for choice, encoding in zip(found, encodings, strict=True))

        counts = {
            part: write_rows(work.directory / f"{part}.parquet", CATALOGUE_EXAMPLES, rows(part, limit))
            for part, limit in work.limits.items()
        }
        asked = choices.held_out(work.connection, lambda _: [], to_draw(ranker), ranker.training.seed)
        counts["holdout"] = write_rows(
            work.directory / "holdout.parquet", HOLDOUT, (query.row() for query in asked)
        )
        return counts

    def tables(self, work: Workspace) -> GraphTables:
        return size.tables(work)

    def held_out(self, work: Workspace) -> list[HoldoutQuery]:
        ranker = work.run.ranker
        most, seed = ranker.gates.max_queries, ranker.training.seed
        return list(choices.held_out(work.connection, lambda _: [], most, seed))

    def draft(self, seen: SourceContents) -> Draft:
        return Draft(
            need="clicks, carts or purchases with a query",
            found=seen.searched,
            why=seen.why,
            metric="map@5",
            suits=2 if seen.searched > _SEARCHED * seen.choices else 0,
            max_length=24,
            validation=max(1, min(14, seen.days // 4)),
        )


FACET = SearchExamples()
