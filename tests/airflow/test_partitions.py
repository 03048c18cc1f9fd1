"""Which day a run handles: the whole table, and the timetable that names it."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pendulum
import pytest
from airflow.timetables.base import TimeRestriction
from hypothesis import given
from hypothesis import strategies as st

from reshelve_airflow.partitions import PartitionError, resolve_partition
from reshelve_airflow.timetable import NightTimetable

NIGHT = datetime(2011, 8, 31, 3, 30, tzinfo=UTC)
DAY = (datetime(2011, 8, 30, 3, 30, tzinfo=UTC), NIGHT)


@pytest.mark.parametrize(
    "run",
    [
        pytest.param({"key": "2011-08-30"}, id="key: schedule, backfill, REST"),
        pytest.param({"key": "2011-08-30", "asked": "2011-08-30"}, id="key and param agree"),
        pytest.param(
            {"key": "2011-08-30", "logical_date": datetime(2026, 1, 1, tzinfo=UTC)}, id="key beside a date"
        ),
        pytest.param({"asked": "2011-08-30"}, id="param"),
        pytest.param(
            {"asked": "2011-08-30", "logical_date": NIGHT.replace(year=2026)}, id="param beside a date"
        ),
        pytest.param({"interval": DAY, "logical_date": DAY[0]}, id="a wide interval: the day it starts on"),
        pytest.param(
            {"interval": (NIGHT, NIGHT), "logical_date": NIGHT}, id="a zero-width interval: the day before"
        ),
        pytest.param({"logical_date": NIGHT}, id="a logical date: the day before"),
        pytest.param(
            {"logical_date": NIGHT.astimezone(pendulum.timezone("Asia/Tokyo"))}, id="days are UTC's"
        ),
    ],
)
def test_every_kind_of_run_of_that_night_handles_the_thirtieth(run: dict[str, object]) -> None:
    assert resolve_partition(**run) == date(2011, 8, 30)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("run", "said"),
    [
        pytest.param({}, "say which day", id="nothing"),
        pytest.param({"key": "2011-08-30", "asked": "2011-08-31"}, "give one of them", id="two days"),
        pytest.param({"key": "2011-8-x"}, "expected YYYY-MM-DD", id="no day"),
        pytest.param({"asked": "30.8.2011"}, "param partition", id="no ISO day"),
    ],
)
def test_a_run_that_does_not_say_its_day_is_refused(run: dict[str, object], said: str) -> None:
    with pytest.raises(PartitionError, match=said):
        resolve_partition(**run)  # type: ignore[arg-type]


def backfill(timetable: NightTimetable, first: str, last: str) -> list[str | None]:
    infos = timetable.iter_partition_dagrun_infos(earliest=pendulum.parse(first), latest=pendulum.parse(last))  # type: ignore[arg-type]
    return [info.partition_key for info in infos]


@pytest.mark.parametrize(
    ("cron", "days"),
    [
        pytest.param("30 3 * * *", ["2011-08-27", "2011-08-28", "2011-08-29", "2011-08-30"], id="nightly"),
        pytest.param("30 3 * * 1", ["2011-08-28"], id="Mondays: the Sunday before, not the Monday before"),
        pytest.param(
            "0 */6 * * *", ["2011-08-27", "2011-08-28", "2011-08-29", "2011-08-30"], id="each day once"
        ),
    ],
)
def test_a_backfill_handles_both_its_ends(cron: str, days: list[str]) -> None:
    assert backfill(NightTimetable(cron), "2011-08-27", "2011-08-30") == days


def test_schedule_and_backfill_agree_on_the_instant_of_a_partition() -> None:
    timetable = NightTimetable("30 3 * * *", first="2099-01-01")
    scheduled = timetable.next_dagrun_info_v2(
        last_dagrun_info=None, restriction=TimeRestriction(None, None, False)
    )
    assert scheduled
    assert scheduled.partition_key == "2099-01-01"
    assert scheduled.run_after == pendulum.datetime(2099, 1, 2, 3, 30)
    (filled,) = timetable.iter_partition_dagrun_infos(
        earliest=pendulum.datetime(2099, 1, 1), latest=pendulum.datetime(2099, 1, 1)
    )
    assert filled.partition_date == scheduled.partition_date == timetable.resolve_partition_date("2099-01-01")


def test_without_a_first_day_the_schedule_begins_with_last_night() -> None:
    timetable = NightTimetable("0 0 * * *", first="2011-01-01")
    info = timetable.next_dagrun_info_v2(
        last_dagrun_info=None, restriction=TimeRestriction(None, None, False)
    )
    assert info
    assert info.partition_key == pendulum.now("UTC").subtract(days=1).format("YYYY-MM-DD")


@given(
    st.dates(date(2000, 1, 1), date(2100, 1, 1)),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York"]),
)
def test_one_day_of_backfill_is_that_day_in_any_time_zone(day: date, timezone: str) -> None:
    timetable = NightTimetable("30 3 * * *", timezone=timezone)
    assert backfill(timetable, day.isoformat(), day.isoformat()) == [day.isoformat()]
    assert NightTimetable.deserialize(timetable.serialize()).serialize() == timetable.serialize()
