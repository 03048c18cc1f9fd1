"""The files of a pair ranker: see `pair_files.py`."""

from __future__ import annotations

from datetime import date

import duckdb

from reshelve.config.ranker import Ranker
from reshelve.examples.drafts import Draft, SourceContents
from reshelve.examples.formats import HoldoutQuery
from reshelve.examples.workspace import Workspace
from reshelve.kind import Examples
from reshelve.kinds.pair import impressions
from reshelve.kinds.pair.pair_files import held_out_pairs, write_pairs


class PairExamples(Examples):
    """From choices, impressions or judgements."""

    def expected(self, ranker: Ranker) -> str:
        return f"{ranker.examples.labels} (query and item)"

    def prepare(self, ranker: Ranker, connection: duckdb.DuckDBPyConnection, begins: date) -> None:
        if ranker.examples.labels == "impressions":
            impressions.list_shown(connection, begins)

    def write(self, work: Workspace) -> dict[str, int]:
        return write_pairs(work)

    def held_out(self, work: Workspace) -> list[HoldoutQuery]:
        return list(held_out_pairs(work))

    def draft(self, seen: SourceContents) -> Draft:
        judged = seen.judged > seen.searched
        return Draft(
            need="choices or judgements with a query",
            found=seen.searched + seen.judged,
            why=seen.why,
            metric="ndcg@10" if judged else "mrr@10",
            suits=3 if seen.judged > seen.choices else 0,
            beats=("popularity", "bm25"),
            judged=judged,
        )


FACET = PairExamples()
