"""Real requests of the held-out slice: for warm-up, for checks, and to judge what compression costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from reshelve.errors import DataError
from reshelve.export.catalogue import PackagedCatalogue


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
