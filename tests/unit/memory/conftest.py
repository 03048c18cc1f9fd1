"""Searches of a small shop, each written by the test."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import numpy as np
import pytest

from reshelve.memory.tables import Corpus, Searches

TODAY = date(2011, 8, 30)
# Days before TODAY (1 is yesterday), item, weight, query.
Row = tuple[int, int, float, str]


@pytest.fixture(scope="session")
def today() -> date:
    """The instant that is remembered."""
    return TODAY


@pytest.fixture(scope="session")
def searches_of() -> Callable[..., Searches]:
    """`searches_of((1, 0, 2.0, "red cup"), …)`: yesterday item 0 was chosen under `red cup`, with weight 2."""

    def made(*rows: Row) -> Searches:
        ago, items, weights, queries = zip(*rows, strict=True) if rows else ((), (), (), ())
        days = [TODAY.toordinal() - number for number in ago]
        return Searches(
            np.array(items, np.int32), np.array(days, np.int32), np.array(weights, np.float32), list(queries)
        )

    return made


@pytest.fixture(scope="session")
def corpus_of(searches_of: Callable[..., Searches]) -> Callable[..., Corpus]:
    """`corpus_of(titles, *rows)`."""
    return lambda titles, *rows: Corpus(searches_of(*rows), titles)
