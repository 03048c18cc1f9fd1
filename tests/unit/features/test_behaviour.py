"""Rates of choice where items were shown, against values worked out by hand."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tests.shown import counted

from reshelve.features.behaviour import Behaviour, Rates
from reshelve.features.columns import BEHAVIOUR
from reshelve.features.impression_counts import ImpressionCounts

TODAY = date(2011, 8, 10)
YESTERDAY, LAST_WEEK = TODAY - timedelta(days=1), TODAY - timedelta(days=8)


def seen(*rows: tuple[str, str, date, float]) -> ImpressionCounts:
    """Query, item, day, and 1 where it was chosen the same day."""
    queries, items, days, chosen = (list(column) for column in zip(*rows, strict=True))
    return counted(
        queries, items, days, [day if yes else None for day, yes in zip(days, chosen, strict=True)]
    )


def columns(rates: Rates, query: str, item: str) -> dict[str, float]:
    found = Behaviour(rates).features(tf.constant([query]), tf.constant([item])).numpy()[0]
    return dict(zip(BEHAVIOUR, found.tolist(), strict=True))


def test_rates_are_smoothed_towards_what_is_known_more_surely() -> None:
    shown = [("lamp", "a", YESTERDAY, 1.0)] * 3 + [("lamp", "b", YESTERDAY, 0.0)] * 5
    found = columns(seen(*shown).rates(TODAY), "lamp", "a")
    overall = (3 + 1) / (8 + 2)
    item = (3 + 30 * overall) / (3 + 30)
    assert found["item_rate_ever"] == pytest.approx(np.log(item / overall), rel=1e-5)
    both = (3 + 10 * item) / (3 + 10)
    assert found["both_rate_ever"] == pytest.approx(np.log(both / item), rel=1e-5)
    assert found["item_shown"] == pytest.approx(np.log1p(3)) and found["query_shown"] == pytest.approx(
        np.log1p(8)
    )


def test_the_recent_rate_forgets_by_half_each_week() -> None:
    found = columns(
        seen(("lamp", "a", LAST_WEEK, 1.0), ("cup", "b", YESTERDAY, 0.0)).rates(TODAY), "lamp", "a"
    )
    overall = (0.5 + 1) / (1.5 + 2)
    assert found["item_rate_7d"] == pytest.approx(
        np.log((0.5 + 30 * overall) / (0.5 + 30) / overall), rel=1e-5
    )


def test_nothing_of_the_day_itself_or_later_is_known() -> None:
    past = [("lamp", "a", YESTERDAY, 1.0), ("cup", "b", YESTERDAY, 0.0)]
    later = [("lamp", "a", TODAY, 0.0), ("lamp", "c", TODAY + timedelta(days=1), 1.0)]
    before, after = seen(*past).rates(TODAY), seen(*past, *later).rates(TODAY)
    assert before.names == after.names
    np.testing.assert_array_equal(before.values, after.values)


def test_a_choice_that_is_still_to_come_is_not_known_yet() -> None:
    tomorrow = TODAY + timedelta(days=1)
    shown = counted(["lamp", "cup"], ["a", "b"], [YESTERDAY] * 2, [TODAY, None])
    never = counted(["lamp", "cup"], ["a", "b"], [YESTERDAY] * 2, [None, None])
    np.testing.assert_array_equal(shown.rates(TODAY).values, never.rates(TODAY).values)
    assert (shown.rates(tomorrow).values != never.rates(tomorrow).values).any()


def test_spellings_of_one_query_are_one_and_strangers_are_zero() -> None:
    rates = seen(("Red  Lamps", "a", YESTERDAY, 1.0), ("cup", "b", YESTERDAY, 0.0)).rates(TODAY)
    assert columns(rates, "red lamp", "a") == columns(rates, "Red  Lamps", "a")
    strange = columns(rates, "never asked", "new")
    assert set(strange.values()) == {0.0}


def test_a_shop_that_showed_nothing_has_rates_too(tmp_path: Path) -> None:
    nothing = counted([], [], [], []).rates(TODAY)
    nothing.write(tmp_path / "behaviour.parquet")
    assert set(columns(Rates.read(tmp_path / "behaviour.parquet"), "lamp", "a").values()) == {0.0}
