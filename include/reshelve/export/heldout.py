"""Requests of the held-out slice: for checks, and to judge what compression costs; and those that a version may keep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from reshelve.errors import DataError
from reshelve.examples.common_queries import common_queries
from reshelve.examples.queries import normalised
from reshelve.export.catalogue import PackagedCatalogue
from reshelve.kind_registry import kind_of
from reshelve.lineage.run import Run


@dataclass(frozen=True)
class HeldOutQuestion:
    """One question: the history's text, or the query and the item ids to order."""

    text: str
    candidates: list[str]


def read_questions(
    examples: Path, catalogue: PackagedCatalogue, limit: int, of: Callable[[str], bool] | None = None
) -> list[HeldOutQuestion]:
    """At most `limit` questions, spread evenly over `holdout.parquet`. Raises DataError where it is empty.

    `of`: only those whose cluster it accepts; all, where it accepts none of them. A question without a shortlist gets the newest catalogue's
    first items.
    """
    table = pq.read_table(examples / "holdout.parquet", columns=["text", "candidates", "cluster"])
    if not table.num_rows:
        raise DataError(f"{examples / 'holdout.parquet'}: no held-out question", "expected at least one")
    if of is not None:
        accepted = table.filter([of(cluster) for cluster in table["cluster"].to_pylist()])
        table = accepted if accepted.num_rows else table
    step = max(1, table.num_rows // limit)
    rows = table.take(list(range(0, table.num_rows, step))[:limit]).to_pylist()
    return [HeldOutQuestion(row["text"] or "", row["candidates"] or catalogue.items[:40]) for row in rows]


def questions_to_keep(
    run: Run, examples: Path, catalogue: PackagedCatalogue, questions: list[HeldOutQuestion]
) -> list[HeldOutQuestion]:
    """As many questions, of the same candidates and about the same lengths, whose texts are no single customer's.

    They travel with a version, as warm-up requests and known answers. A query stays where it may be remembered; every other
    text becomes one of the catalogue's titles.
    """
    requests = kind_of(run.ranker.kind).requests
    known = {normalised(query) for query in common_queries(examples, run.ranker.remember)}
    return [
        question
        if normalised(question.text) in known
        else HeldOutQuestion(requests.of_titles(catalogue.titles, place, question.text), question.candidates)
        for place, question in enumerate(questions)
    ]
