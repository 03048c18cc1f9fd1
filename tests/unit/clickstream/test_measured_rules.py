"""Rules about a partition as one number: what it is compared with, and when it says nothing."""

from __future__ import annotations

import random
from collections import Counter
from datetime import date, timedelta
from typing import Any

import pytest

from reshelve.clickstream.database import connect
from reshelve.validation.drift import stability
from reshelve.validation.measured_rules import (
    Drift,
    MeasuredRule,
    NewItemShare,
    NoNewColumns,
    PartitionFacts,
    QuantileShift,
    RowCountTrend,
    TypeShare,
)
from reshelve.validation.profile import Profile, histograms, profile_query, quantile

MONDAY = date(2026, 3, 2)
SAID: dict[str, Any] = {"name": "r", "description": "d", "severity": "warn"}


def profile(day: date, rows: int = 1000, good: int | None = None, **histograms: dict[str, int]) -> Profile:
    return Profile(partition=day, rows=rows, good=rows if good is None else good, histograms=dict(histograms))


def weeks(rows: dict[int, int], **histograms: dict[str, int]) -> tuple[Profile, ...]:
    """Past days by how many days ago they were, oldest first."""
    return tuple(
        profile(MONDAY - timedelta(days=ago), count, **histograms)
        for ago, count in sorted(rows.items())[::-1]
    )


def broken(rule: MeasuredRule, facts: PartitionFacts) -> bool | None:
    """None: the rule says nothing."""
    found = rule.measured(facts)
    if found is None:
        return None
    low, high = found.low, found.high
    return bool((low is not None and found.value < low) or (high is not None and found.value > high))


USUAL = {7: 1000, 14: 1100, 21: 900, 1: 5000, 2: 5000, 3: 5000}  # Mondays are quiet


@pytest.mark.parametrize(
    ("rows", "history", "expected"),
    [
        pytest.param(1050, USUAL, False, id="as other Mondays"),
        pytest.param(5000, USUAL, True, id="as other days, but it is a Monday"),
        pytest.param(100, USUAL, True, id="a tenth"),
        pytest.param(100, {1: 5000, 7: 1000}, None, id="one Monday is too few"),
        pytest.param(100, {35: 1000, 42: 1000}, None, id="too long ago"),
        pytest.param(9, {7: 20, 14: 24}, False, id="few rows vary by chance"),
    ],
)
def test_rows_are_compared_with_the_same_weekday(
    rows: int, history: dict[int, int], expected: bool | None
) -> None:
    rule = RowCountTrend(**SAID, check="row_count_trend", weeks=4)
    assert broken(rule, PartitionFacts(profile(MONDAY, rows), 0, weeks(history))) is expected


@pytest.mark.parametrize(
    ("clicks", "rows", "expected"),
    [
        pytest.param(50, 1000, False, id="inside"),
        pytest.param(110, 1000, False, id="outside by no more than chance"),
        pytest.param(11_000, 100_000, True, id="the same share of many rows is no chance"),
        pytest.param(0, 100_000, True, id="none at all"),
        pytest.param(900, 999, None, id="too few rows"),
    ],
)
def test_a_share_is_broken_only_beyond_chance(clicks: int, rows: int, expected: bool | None) -> None:
    rule = TypeShare(**SAID, check="type_share", event_type="click", min=0.02, max=0.1)
    facts = PartitionFacts(
        profile(MONDAY, rows, event_type={"click": clicks, "impression": rows - clicks}), 0
    )
    assert broken(rule, facts) is expected


def test_new_items_are_told_once_there_is_a_past() -> None:
    rule = NewItemShare(**SAID, check="new_item_share", max=0.2, least_days=3)
    past = weeks({1: 10, 2: 10, 3: 10})
    assert broken(rule, PartitionFacts(profile(MONDAY), 0, past, item_rows=1000, new_rows=150)) is False
    assert broken(rule, PartitionFacts(profile(MONDAY), 0, past, item_rows=1000, new_rows=300)) is True
    assert broken(rule, PartitionFacts(profile(MONDAY), 0, past[:2], item_rows=1000, new_rows=300)) is None


def test_a_column_nobody_told_of_is_named() -> None:
    rule = NoNewColumns(**SAID, check="no_new_columns")
    assert broken(rule, PartitionFacts(profile(MONDAY), 0, extra_columns=("received_time",))) is False
    found = rule.measured(PartitionFacts(profile(MONDAY), 0, extra_columns=("colour", "shade")))
    assert found is not None
    assert (found.value, found.said) == (2, "new columns: colour, shade")


def prices(count: int, shift: int, seed: int) -> dict[str, int]:
    """A histogram of `count` prices around bin 32 (4.0), moved by `shift` bins."""
    chance = random.Random(seed)
    return dict(Counter(f"+{round(chance.gauss(32, 12)) + shift}" for _ in range(count)).items())


@pytest.mark.parametrize("count", [500, 5_000, 50_000])
def test_drift_is_found_by_its_size_and_never_invented(count: int) -> None:
    rule = Drift(**SAID, check="drift", column="price", max=0.1)
    past = tuple(profile(MONDAY - timedelta(days=n), price=prices(2000, 0, n)) for n in range(1, 8))
    same = [
        PartitionFacts(profile(MONDAY, price=prices(count, 0, seed)), 0, past) for seed in range(100, 110)
    ]
    assert not any(broken(rule, facts) for facts in same)
    assert (
        broken(rule, PartitionFacts(profile(MONDAY, price=prices(count, 16, 1)), 0, past)) is True
    )  # twice the price
    assert broken(rule, PartitionFacts(profile(MONDAY, price=prices(100, 16, 1)), 0, past)) is None


def test_the_index_of_few_rows_is_large_by_chance_alone() -> None:
    """The reason for `chance`: 60 rows of the very same distribution exceed 0.1, and are not called drift."""
    before = prices(10_000, 0, 1)
    found = [stability(prices(60, 0, seed), before) for seed in range(50)]
    assert max(one.psi for one in found) > 0.1
    assert all(one.psi <= one.chance for one in found)


@pytest.mark.parametrize(("shift", "expected"), [(0, False), (10, False), (20, True), (-20, True)])
def test_a_quantile_that_doubles_or_halves_is_told(shift: int, expected: bool) -> None:
    rule = QuantileShift(**SAID, check="quantile_shift", column="price", max_ratio=2)
    past = (profile(MONDAY - timedelta(days=1), price=prices(5000, 0, 1)),)
    assert broken(rule, PartitionFacts(profile(MONDAY, price=prices(5000, shift, 2)), 0, past)) is expected


def test_a_quantile_of_bins_is_exact_to_half_a_bin() -> None:
    histogram = {"-16": 1, "0": 1, "+0": 1, "+16": 1}
    assert quantile(histogram, 0.25) == pytest.approx(-2, rel=0.05)
    assert quantile(histogram, 0.5) == 0
    assert quantile(histogram, 1.0) == pytest.approx(2, rel=0.05)


def test_a_profile_counts_each_number_once_and_nothing_that_is_none() -> None:
    values = ["1.0", "-1.0", "0.0", "8.0", "NULL", "'nan'::DOUBLE", "'inf'::DOUBLE"]
    drawn = " UNION ALL ".join(
        f"SELECT {value}::DOUBLE AS price, NULL::BIGINT AS quantity, 3 AS position, NULL::DOUBLE AS grade,"
        " TIMESTAMP '2026-03-02 23:10:00' AS event_time, 'click' AS event_type"
        for value in values
    )
    with connect() as db:
        found = histograms(db.execute(profile_query(f"({drawn})")).fetchall())
    assert found["price"] == {"+0": 1, "+48": 1, "-0": 1, "0": 1}
    assert found["quantity"] == {}
    assert (found["position"], found["hour"], found["event_type"]) == ({"+25": 7}, {"23": 7}, {"click": 7})
