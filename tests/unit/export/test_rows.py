"""How many rows of a request a version takes: as its ranker file says, or as many as its graph can number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from reshelve.export.module import CELLS, MOST_CANDIDATES, MOST_QUESTIONS, RankerModule
from reshelve.export.version import rows_of
from reshelve.kinds.search.export import rows_that_fit


class Numbering(RankerModule):
    def rows_that_fit(self, name: str) -> int:
        return 700 if name == "query" else super().rows_that_fit(name)


@pytest.mark.parametrize(
    ("given", "queries", "items"),
    [(None, MOST_QUESTIONS, MOST_CANDIDATES), (500, 500, 500), (16_384, 700, 16_384)],
)
def test_a_request_has_the_rows_of_the_ranker_file_or_as_many_as_can_be_numbered(
    given: int | None, queries: int, items: int
) -> None:
    rows = rows_of(Numbering(), given)
    assert (rows("query"), rows("item")) == (queries, items)


class Tables:
    def __init__(self, grams: int, items: int) -> None:
        self.grams, self.keys, self.popularity = range(grams), range(10), np.zeros((items, 1))


@pytest.mark.parametrize(
    ("grams", "items"), [(2_900_000, 1_000_000), (300_000, 5_000), (300_000, 4_000), (100, 100)]
)
def test_the_last_row_of_a_search_is_numbered_in_32_bits(grams: int, items: int) -> None:
    tables: Any = Tables(grams, items)
    rows = rows_that_fit(tables, 1024)
    assert rows >= MOST_QUESTIONS
    last = np.int64(rows - 1) * (max(grams, items) + 1) + max(grams, items)  # the cell of its last column
    assert last <= CELLS
    if items > 4096:
        assert np.int64(rows) * 1024 * 900 <= CELLS  # a title of 200 letters has some 800 n-grams
