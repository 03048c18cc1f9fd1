"""What was searched before the held-out days, and what a search ranker may remember of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq

from reshelve.clickstream.remember import customer
from reshelve.examples.catalogue import Catalogue
from reshelve.features.noisy_searches import Choice, NoisyCorpus, plain, unit_of
from reshelve.features.tables import Corpus, Searches, SearchTables
from reshelve.lineage.run import Run


@dataclass(frozen=True)
class Memory:
    """The tables of any morning. `about`: what the stage's result says of how they were made."""

    tables: Callable[[date], SearchTables]
    about: dict[str, Any]

    @classmethod
    def of(cls, corpus: Corpus, examples: Path, catalogue: Catalogue, run: Run) -> Memory:
        """Of the corpus itself; with `remember.privacy` of counts that are released with noise.

        Raises ConfigurationError where noise is asked for and OpenDP is not installed.
        """
        rule, labels = run.ranker.remember, run.ranker.data.label_weights
        if not rule.privacy.on:
            return cls(corpus.tables, {"queries_asked": len(corpus.keys)})
        heaviest = max(labels.values())
        choices = _choices(examples, run, heaviest)
        noisy = NoisyCorpus(choices, catalogue.index, titles_of(catalogue), rule, heaviest)
        return cls(noisy.tables, {"privacy": noisy.spent})


def read_corpus(examples: Path, catalogue: Catalogue, run: Run) -> Corpus:
    """All searches of `events.parquet`, which knows nothing of the holdout, and the catalogue's titles."""
    return Corpus(_searches(examples, catalogue, run), titles_of(catalogue), run.ranker.remember)


def titles_of(catalogue: Catalogue) -> list[str]:
    """An untitled item is called by its id, which says nothing of it."""
    return [
        "" if title == item else title for item, title in zip(catalogue.items, catalogue.titles, strict=True)
    ]


class _Searched(NamedTuple):
    day: date
    weight: float
    query: str
    item: str
    user: str | None
    session: str | None


def _searched(examples: Path, run: Run) -> Iterator[_Searched]:
    """Label events with a query."""
    columns = ["event_time", "event_type", "query", "item_id", "user_id", "session_id"]
    table = pq.read_table(examples / "events.parquet", columns=columns).select(columns)
    labels = run.ranker.data.label_weights
    for time, kind, query, item, user, session in zip(*table.to_pydict().values(), strict=True):
        if query and query.strip() and kind in labels:
            yield _Searched(time.date(), labels[kind], query.strip(), item, user, session)


def _searches(examples: Path, catalogue: Catalogue, run: Run) -> Searches:
    """Those of items of the catalogue."""
    numbers: dict[str, int] = {}
    rows = [
        (
            catalogue.index[one.item], one.day.toordinal(), one.weight, one.query,
            numbers.setdefault(customer(one.user, one.session, one.day), len(numbers)),
        )
        for one in _searched(examples, run)
        if one.item in catalogue.index
    ]  # fmt: skip
    items, days, weights, queries, customers = zip(*rows, strict=True) if rows else ((), (), (), (), ())
    return Searches(
        np.array(items, np.int32), np.array(days, np.int32), np.array(weights, np.float32), list(queries),
        np.array(customers, np.int64),
    )  # fmt: skip


def _choices(examples: Path, run: Run, heaviest: float) -> list[Choice]:
    """Those of every item, as they are counted with noise."""
    found = list(_searched(examples, run))
    words = plain([one.query for one in found])
    return [
        Choice(unit_of(one.user, one.session), words[one.query], one.item, one.day, one.weight / heaviest)
        for one in found
    ]
