"""Impressions counted by the database, against a slow count of every row; and what that costs as they grow."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.measured import peak_megabytes
from tests.shown import SEEN, counted, impressions

from reshelve.config.remember import Remember
from reshelve.examples.build import build_examples
from reshelve.features import impression_counts
from reshelve.features.behaviour import Rates, query_keys
from reshelve.features.impression_counts import ImpressionCounts
from reshelve.landing.land import land
from reshelve.lineage.run import Run
from reshelve.pipeline.references import load_ranker
from reshelve.store.objects import ObjectStore
from reshelve.validation.validate import validate_range

TODAY = date(2011, 8, 30)
Row = tuple[str, str, date, date | None, str]  # query, item, day, day of its choice, customer


def slowly(rows: Sequence[Row], as_of: date, rule: Remember) -> dict[str, list[float]]:
    """The same rates, row by row."""
    keys = dict(zip(asked := sorted({row[0] for row in rows}), query_keys(asked), strict=True))
    customers, days = defaultdict(set), defaultdict(set)
    for query, _, day, _, who in rows:
        if day < as_of:
            customers[keys[query]].add(who)
            days[keys[query]].add(day)
    counts: dict[str, np.ndarray] = defaultdict(lambda: np.zeros((2, 2)))
    item_of = {}
    for query, item, day, chosen, _ in rows:
        if day >= as_of:
            continue
        key, weight = keys[query], np.array([1.0, 2.0 ** (-((as_of - day).days - 1) / 7)])
        seen = np.stack([weight, weight * (chosen is not None and chosen < as_of)])
        names = ["all", f"item\x1f{item}"]
        if len(customers[key]) >= rule.customers and len(days[key]) >= rule.days:
            names += [f"query\x1f{key}", both := f"both\x1f{key}\x1f{item}"]
            item_of[both] = f"item\x1f{item}"
        for name in names:
            counts[name] += seen
    shown, chosen_of = counts.pop("all", np.zeros((2, 2)))
    overall = (chosen_of + 1) / (shown + 2)
    found = {}
    for name, (shown, chosen_of) in counts.items():
        towards, strength = overall, 30.0
        if name in item_of:
            of_item = counts[item_of[name]]
            towards, strength = (of_item[1] + 30 * overall) / (of_item[0] + 30), 10.0
        rate = (chosen_of + strength * towards) / (shown + strength)
        found[name] = [*np.log(rate / towards), np.log1p(shown[0])]
    return found


def assert_the_same(found: Rates, expected: dict[str, list[float]]) -> None:
    assert found.names == sorted(expected)
    values = np.array([expected[name] for name in found.names]).reshape(-1, 3)
    np.testing.assert_allclose(found.values, values, rtol=1e-6, atol=1e-7)


def past(ago: int) -> date:
    return TODAY - timedelta(days=ago)


SHOWN = st.tuples(
    st.sampled_from(["lamp", "Lamp", "red lamp", "", "日本"]), st.sampled_from(["a", "b", "é"]),
    st.integers(-1, 40).map(past), st.none() | st.integers(-2, 40).map(past), st.sampled_from(["anna", "ben", "cy"]),
)  # fmt: skip


@given(st.lists(SHOWN, max_size=40), st.integers(1, 3), st.integers(1, 3))
@settings(deadline=None, max_examples=15)
def test_the_database_counts_what_a_slow_count_does(rows: list[Row], customers: int, days: int) -> None:
    rule = Remember(customers=customers, days=days)
    columns = list(zip(*rows, strict=True)) if rows else [()] * 5
    counts = counted(*columns, rule=rule)
    for as_of in (TODAY, past(5)):
        assert_the_same(counts.rates(as_of), slowly(rows, as_of, rule))


def test_rates_of_what_is_asked_about_are_those_of_all() -> None:
    rows = [(f"query {n % 7}", f"item {n % 5}", past(1 + n % 9), past(n % 9), str(n)) for n in range(200)]
    counts = counted(*zip(*rows, strict=True))
    everything = counts.rates(TODAY)
    some = counts.rates(TODAY, (["Query  1", "query 1", "never"], ["item 1", "item 4", "item 0"]))
    assert [name.replace("\x1f", "/") for name in some.names] == [
        "both/query1/item 1", "both/query1/item 4", "item/item 0", "item/item 1", "item/item 4", "query/query1",
    ]  # fmt: skip
    rows_of = [everything.names.index(name) for name in some.names]
    np.testing.assert_array_equal(some.values, everything.values[rows_of])


def test_the_most_frequent_that_may_be_remembered_are_kept_whatever_is_asked() -> None:
    rows = [
        *[("rare", "a", past(1), None, "anna")] * 9,  # most frequent, and one customer's alone
        *[("lamp", "a", past(1 + n % 2), None, str(n)) for n in range(6)],
        *[("cup", "b", past(1 + n % 2), None, str(n)) for n in range(5)],
        *[("mug", "b", past(1 + n % 2), None, str(n)) for n in range(5)],
        ("lamp", "b", past(1), None, "anna"),
    ]
    db = impressions(*zip(*rows, strict=True))
    counts = ImpressionCounts(db, SEEN, Remember(customers=3, days=2), most_queries=2, most_pairs=3)
    names = counts.rates(TODAY).names
    assert [name.split("\x1f") for name in names] == [
        ["both", "cup", "b"], ["both", "lamp", "a"], ["both", "mug", "b"],
        ["item", "a"], ["item", "b"], ["query", "cup"], ["query", "lamp"],
    ]  # fmt: skip
    of_mug = counts.rates(TODAY, (["mug"], ["b"])).names
    assert [name.split("\x1f")[0] for name in of_mug] == ["both", "item"], (
        "training sees what a version will know"
    )


@pytest.mark.slow
def test_the_ads_of_the_sample_have_the_rates_that_they_had(
    store: ObjectStore, tmp_path: Path, small_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    land("ads")
    validate_range("ads", date(2011, 8, 20), date(2011, 8, 31))
    compared = []

    class Compared(ImpressionCounts):
        def __init__(self, db: Any, seen: str, rule: Remember) -> None:
            super().__init__(db, seen, rule)
            columns = "norm, item_id, day, chosen_on, customer"
            self._rows, self._rule = db.execute(f"SELECT {columns} FROM ({seen})").fetchall(), rule

        def rates(self, as_of: date, asked: Any = None) -> Rates:
            found = super().rates(as_of, asked)
            expected = slowly(self._rows, as_of, self._rule)
            expected = expected if asked is None else {name: expected[name] for name in found.names}
            assert_the_same(found, expected)
            compared.append(len(found.names))
            return found

    monkeypatch.setattr(impression_counts, "ImpressionCounts", Compared)
    small = {
        "model.base": str(small_bert),
        "model.layers": 2,
        "model.max_length": 16,
        "examples.max_examples": 1000,
    }
    build_examples(Run(load_ranker("ads", small), date(2011, 8, 31), store, tmp_path / "work"))
    assert len(compared) > 2 and max(compared) > 100


GROWN = """
from datetime import date
from reshelve.clickstream.database import connect
from reshelve.config.remember import Remember
from reshelve.features.impression_counts import ImpressionCounts
db = connect(spill=spill)
db.execute("SET memory_limit = '150MB'")
db.execute("SET threads = 1")
db.execute(f'''CREATE VIEW impressions AS SELECT 'query ' || (hash(n) % 500) AS norm, 'item ' || (hash(n + 1) % 300) AS item_id,
    DATE '2011-08-01' + CAST(n % 20 AS INTEGER) AS day, CASE WHEN hash(n + 2) % 10 = 0 THEN day END AS chosen_on,
    'customer ' || (hash(n + 3) % 100000) AS customer FROM range({rows}) AS given(n)''')
counts = ImpressionCounts(db, "FROM impressions", Remember(customers=3, days=2))
assert len(counts.rates(date(2011, 8, 30)).names) > 100_000
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_impressions(tmp_path: Path) -> None:
    few, many = (peak_megabytes(GROWN, rows=rows, spill=str(tmp_path)) for rows in (200_000, 800_000))
    assert many - few < 200, "Python lists of them all would be 1,000 MB more"


def test_counts_are_the_same_whatever_the_order(tmp_path: Path) -> None:
    rows = [(f"query {n % 7}", f"item {n % 5}", past(1 + n % 29), past(n % 9), str(n)) for n in range(2000)]
    one, other = (counted(*zip(*given, strict=True)).rates(TODAY) for given in (rows, rows[::-1]))
    assert one.names == other.names and np.array_equal(one.values, other.values)
