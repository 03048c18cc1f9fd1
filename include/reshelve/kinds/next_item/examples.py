"""The files of a next_item ranker: places in baskets, each with the history before it and what came next."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from reshelve.config.ranker import Ranker
from reshelve.examples.catalogue import Catalogue
from reshelve.examples.drafts import Draft, SourceContents
from reshelve.examples.formats import CATALOGUE_EXAMPLES, HOLDOUT, HoldoutQuery, write_rows
from reshelve.examples.misspelling import Misspelling
from reshelve.examples.readers import to_draw
from reshelve.examples.tokens import encode, load_tokenizer
from reshelve.examples.workspace import Workspace, reading
from reshelve.kind import Examples
from reshelve.kinds.next_item.baskets import BasketQuestion, BasketQuestions, collect_questions
from reshelve.model.graph_size import INT, GraphTables, texts_bytes


class NextItemExamples(Examples):
    """From baskets, visits and customers of several items."""

    def expected(self, ranker: Ranker) -> str:
        return "baskets or customers with two items"

    def write(self, work: Workspace) -> dict[str, int]:
        ranker = work.run.ranker
        train, validation = ranker.examples.max_examples, work.limits["validation"]
        questions = _questions(work, train, validation, to_draw(ranker))
        tokenizer = load_tokenizer(work.directory / "tokenizer.json", ranker.model.max_length)

        def rows(asked: list[BasketQuestion], reading: Misspelling) -> Iterator[dict[str, Any]]:
            encodings = encode(tokenizer, (reading.of(question.text) for question in asked))
            for question, encoding in zip(asked, encodings, strict=True):
                known = [
                    (work.catalogue.index[item], weight)
                    for item, weight in zip(question.rest, question.weights, strict=True)
                    if item in work.catalogue.index
                ]
                targets, weights = zip(*known, strict=True)
                weight = sum(weights) / len(weights)
                yield {"input_ids": encoding.ids, "targets": list(targets), "weight": weight}

        counts = {
            part: write_rows(
                work.directory / f"{part}.parquet", CATALOGUE_EXAMPLES, rows(asked, reading(ranker, part))
            )
            for part, asked in (("train", questions.train), ("validation", questions.validation))
        }
        counts["holdout"] = write_rows(
            work.directory / "holdout.parquet", HOLDOUT, (q.held_out().row() for q in questions.holdout)
        )
        return counts

    def tables(self, work: Workspace) -> GraphTables:
        return graph_tables(work.catalogue, work.run.ranker.examples.repeat)

    def held_out(self, work: Workspace) -> list[HoldoutQuery]:
        asked = _questions(work, 0, 0, work.run.ranker.gates.max_queries)
        return [question.held_out() for question in asked.holdout]

    def draft(self, seen: SourceContents) -> Draft:
        return Draft(
            need="baskets, visits or customers with two items",
            found=seen.baskets,
            why=f"{seen.baskets:,} baskets hold several items; {seen.share}",
            metric="recall@20",
            suits=1,  # what any shop has
            from_history=True,
        )


def graph_tables(catalogue: Catalogue, repeat: bool) -> GraphTables:
    """Items and titles; where nothing is to `repeat`, also every name of an item, its number, and where it leads (`export.held`)."""
    found = texts_bytes(catalogue.items) + texts_bytes(catalogue.titles)
    if not repeat:
        names = {name.lower() for name in (*catalogue.items, *catalogue.titles)}
        names |= {name.lower() for others in catalogue.names for name in others}
        found += texts_bytes(names) + (INT + 8 + INT) * len(names)
    return GraphTables(found)


def _questions(work: Workspace, train: int, validation: int, holdout: int) -> BasketQuestions:
    ranker = work.run.ranker
    return collect_questions(
        work.connection,
        known=work.catalogue.items,
        history_items=ranker.examples.history_items,
        train=train,
        validation=validation,
        holdout=holdout,
        seed=ranker.training.seed,
        repeat=ranker.examples.repeat,
    )


FACET = NextItemExamples()
