"""Impressions: what was shown, what was chosen of it in time, and features that know no future."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from reshelve.errors import DataError
from reshelve.examples.build import build_examples
from reshelve.examples.formats import read_holdout
from reshelve.features.columns import BEHAVIOUR, feature_columns
from reshelve.lineage.run import Run

from .conftest import Shop, day

FEATURES = ["text", "behaviour", "position"]


def event(kind: str, visit: str, item: int, at: datetime, position: int | None = None) -> dict[str, Any]:
    return {
        "event_id": f"{kind}-{visit}-{item}-{at}", "event_time": at, "event_type": kind, "session_id": visit,
        "query": "red lamp", "item_id": f"i{item}", "item_title": f"red lamp {item}", "position": position,
    }  # fmt: skip


def write_days(shop: Shop, days: int = 6, changed: int | None = None) -> None:
    """Three visits a day that each show three items; the first item is clicked. `changed`: a day where all are."""
    for number in range(days):
        rows, start = [], datetime.combine(day(number), datetime.min.time())
        for visit in range(3):
            at, name = start + timedelta(hours=visit), f"{number}-{visit}"
            rows += [event("impression", name, item, at, item + 1) for item in range(3)]
            clicked = range(3) if number == changed else range(1)
            rows += [event("click", name, item, at + timedelta(minutes=item + 1)) for item in clicked]
        shop.write(day(number), rows)


def run_of(shop: Shop, **examples: Any) -> Run:
    return shop.run(
        "pair", day(5), {"labels": "impressions", **examples}, events={"click": 1.0}, window_days=10
    )


def built(run: Run) -> dict[str, list[dict[str, Any]]]:
    run.stage("examples").commit(build_examples(run))
    directory = run.stage("examples").directory
    return {
        name: pq.read_table(directory / f"{name}.parquet").to_pylist() for name in ("train", "validation")
    }


def test_what_was_chosen_soon_after_it_was_shown_is_one(shop: Shop) -> None:
    write_days(shop)
    run = run_of(shop)
    rows = built(run)["train"]
    assert [row["label"] for row in rows] == [1, 0, 0] * 12, "four days of three lists, in the order of time"
    assert [row["group"] for row in rows] == [place // 3 for place in range(36)]
    asked = read_holdout(run.stage("examples").directory / "holdout.parquet")
    assert [(query.candidates, query.relevant) for query in asked] == [(["i0", "i1", "i2"], ["i0"])] * 3


@pytest.mark.parametrize(("minutes", "chosen"), [(4, 0), (6, 1)], ids=["too late", "in time"])
def test_a_late_choice_counts_within_the_attribution_window_alone(
    shop: Shop, minutes: float, chosen: int
) -> None:
    write_days(shop)
    at = datetime.combine(day(0), datetime.min.time()) + timedelta(hours=12)
    late = [event("impression", "late", 7, at, 1), event("click", "late", 7, at + timedelta(minutes=5))]
    shop.write(day(0), [*shop.days[day(0)], *late])
    rows = built(run_of(shop, attribution_minutes=minutes))["train"]
    assert sum(row["label"] for row in rows) == 12 + chosen


def test_a_choice_belongs_to_the_last_time_that_its_item_was_shown(shop: Shop) -> None:
    write_days(shop)
    at = datetime.combine(day(0), datetime.min.time()) + timedelta(hours=12)
    twice = [event("impression", "again", 7, at + timedelta(minutes=minute), 1) for minute in (0, 2)]
    shop.write(day(0), [*shop.days[day(0)], *twice, event("click", "again", 7, at + timedelta(minutes=3))])
    labels = [row["label"] for row in built(run_of(shop))["train"]]
    assert labels[9:11] == [0, 1] and sum(labels) == 13


@pytest.mark.slow
def test_features_of_an_example_know_nothing_of_its_day_or_later(shop: Shop) -> None:
    write_days(shop)
    before = built(run_of(shop, features=FEATURES))["train"]
    write_days(shop, changed=2)
    after = built(run_of(shop, features=FEATURES))["train"]
    rate = feature_columns(FEATURES).index("item_rate_ever")
    same, later = slice(0, 27), slice(27, 36)  # days 0, 1, 2; and 3
    assert [row["features"] for row in before[same]] == [row["features"] for row in after[same]]
    assert [row["label"] for row in before[same]] != [row["label"] for row in after[same]]
    moved = np.array([row["features"][rate] for row in after[later]]) - [
        row["features"][rate] for row in before[later]
    ]
    assert (moved != 0).all(), "what was chosen on day 2 is known on day 3"


@pytest.mark.slow
def test_a_validation_day_that_showed_nothing_is_bad_data_with_features_too(shop: Shop) -> None:
    write_days(shop)
    shop.write(day(4), [event("click", "4-0", 0, datetime.combine(day(4), datetime.min.time()))])
    with pytest.raises(DataError, match="gave no validation examples"):
        build_examples(run_of(shop, features=FEATURES))


@pytest.mark.slow
def test_features_are_what_they_are_called(shop: Shop) -> None:
    write_days(shop)
    rows = built(run_of(shop, features=FEATURES))["train"]
    columns = feature_columns(FEATURES)
    first = dict(zip(columns, rows[0]["features"], strict=True))
    assert {first[name] for name in BEHAVIOUR} == {0.0}, "nothing was shown before the first day"
    assert [row["features"][columns.index("log_position")] for row in rows[:3]] == pytest.approx(
        np.log([1, 2, 3])
    )
    assert first["words_held"] == 1


@pytest.mark.slow
def test_a_choice_after_midnight_is_unknown_that_morning(shop: Shop) -> None:
    evening = datetime.combine(day(1), datetime.min.time()) + timedelta(hours=23)

    def features(clicked: bool) -> list[list[float]]:
        write_days(shop)
        shop.write(day(1), [*shop.days[day(1)], event("impression", "night", 0, evening, 1)])
        late = [event("click", "night", 0, evening + timedelta(hours=2))] if clicked else []
        shop.write(day(2), [*shop.days[day(2)], *late])
        rows = built(run_of(shop, features=FEATURES, attribution_minutes=600))["train"]
        assert sum(row["label"] for row in rows) == 12 + clicked, "the label itself waits for its choice"
        return [row["features"] for row in rows]

    without, late = features(clicked=False), features(clicked=True)
    second, third = slice(19, 28), slice(28, 37)  # days 2 and 3, after nine, nine and one rows
    assert without[second] == late[second]
    assert all(one != other for one, other in zip(without[third], late[third], strict=True))
