"""A day's request log joined with its clicks: which sessions are compared, and as which version's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reshelve.clickstream.events import EVENT_SCHEMA
from reshelve.config.ranker import Ranker
from reshelve.rollout.clicked import ClickedDay, Joined, join_files
from reshelve.rollout.concurrent import Window
from reshelve.statistics.stratified import Arm, Stratum

DAY = date(2011, 8, 29)
NOON = datetime(2011, 8, 29, 12)
OLD, NEW = 20110828001, 20110829001
MINUTE = timedelta(minutes=1)
BEGINS = datetime(2011, 8, 29, 10, tzinfo=UTC)
FIRST = Window(3, 4, BEGINS, BEGINS + timedelta(hours=1), OLD, NEW, 0.05, 1)
SECOND = Window(5, 5, BEGINS + timedelta(hours=1), BEGINS + timedelta(hours=6), OLD, NEW, 0.5, 2)


@dataclass(frozen=True)
class Asked:
    """One request; where `move` and `meant` are None, the caller is one of before and did not say."""

    at: datetime
    session: str
    version: int
    move: int | None = None
    meant: int | None = None
    items: tuple[str, ...] = ("i1", "i2")


@pytest.fixture
def join(make_ranker: Callable[..., Ranker], tmp_path: Path) -> Callable[..., ClickedDay]:
    """`join(requests, sessions that clicked i1 right after a request, …)`."""

    def write(name: str, rows: list[Asked], old: bool) -> Path:
        columns = {
            "at": pa.array([row.at for row in rows], pa.timestamp("us")),
            "session": pa.array([row.session for row in rows], pa.string()),
            "version": pa.array([row.version for row in rows], pa.int64()),
            "items": pa.array([list(row.items) for row in rows], pa.list_(pa.string())),
            "scores": pa.array([[0.3, 0.1]] * len(rows), pa.list_(pa.float32())),
        }
        if not old:
            columns["move"] = pa.array([row.move for row in rows], pa.int64())
            columns["meant"] = pa.array([row.meant for row in rows], pa.int64())
        pq.write_table(pa.table(columns), tmp_path / name)
        return tmp_path / name

    def joined(
        rows: list[Asked], clicks: list[tuple[datetime, str]] = [], before: list[Asked] | None = None,  # noqa: B006
        old: bool = False, windows: tuple[Window, ...] = (FIRST, SECOND),
    ) -> ClickedDay:  # fmt: skip
        events = [
            {"event_time": at, "event_type": "click", "session_id": session, "item_id": "i1"}
            for at, session in clicks
        ]
        good = [dict.fromkeys(EVENT_SCHEMA.names) | event for event in events]
        pq.write_table(pa.Table.from_pylist(good, EVENT_SCHEMA), tmp_path / "good.parquet")
        earlier = [] if before is None else [write("before.parquet", before, old)]
        parts = [write("asked.parquet", rows, old)]
        return join_files(
            make_ranker(), DAY, parts, tmp_path / "good.parquet", windows, earlier, tmp_path / "spill"
        )

    return joined


def sessions(day: ClickedDay) -> tuple[int, int]:
    """Of the canary, and of stable."""
    return sum(s.mine.sessions for s in day.strata), sum(s.theirs.sessions for s in day.strata)


def test_both_arms_by_window_and_hour(join: Callable[..., ClickedDay]) -> None:
    ten, noon = NOON - 90 * MINUTE, NOON
    rows = [
        Asked(ten, "a", OLD, 3, OLD), Asked(ten + MINUTE, "a", OLD, 4, OLD), Asked(ten, "b", NEW, 3, NEW),
        Asked(noon, "c", NEW, 5, NEW), Asked(noon + MINUTE, "c", NEW, 5, NEW), Asked(noon, "d", OLD, 5, OLD),
    ]  # fmt: skip
    found = join(rows, [(ten + MINUTE + timedelta(seconds=5), "a"), (noon + 2 * MINUTE, "c")])
    assert found.strata == (
        Stratum(Arm(1, 1, 0, 1, 0, 0), Arm(1, 2, 2, 4, 4, 4)),  # the click is within reach of both requests
        Stratum(Arm(1, 2, 2, 4, 4, 4), Arm(1, 1, 0, 1, 0, 0)),
    )
    assert found.joined == (Joined(OLD, 3, 2), Joined(NEW, 3, 2))


def test_a_session_belongs_to_the_version_that_was_meant(join: Callable[..., ClickedDay]) -> None:
    """The canary did not answer: were the session stable's, the canary would be rid of the customers that it failed."""
    rows = [
        Asked(NOON, "a", OLD, 5, NEW),
        Asked(NOON + MINUTE, "a", NEW, 5, NEW),
        Asked(NOON, "b", OLD, 5, NEW),
    ]
    assert sessions(join(rows)) == (2, 0)
    of_before = [Asked(row.at, row.session, row.version) for row in rows]
    assert sessions(join(of_before, old=True)) == (1, 1), "only an answer of the canary shows whose it was"


def test_a_session_that_began_before_the_window_is_left_out(join: Callable[..., ClickedDay]) -> None:
    """It got stable while the share was small, and the canary when it grew: what it saw first would follow it."""
    grown = [Asked(NOON - 90 * MINUTE, "a", OLD, 3, OLD), Asked(NOON, "a", NEW, 5, NEW)]
    found = join(
        [
            *grown,
            Asked(NOON, "b", NEW, 5, NEW),
            Asked(NOON - 200 * MINUTE, "c", OLD, 2, OLD),
            Asked(NOON, "c", OLD, 5, OLD),
        ]
    )
    assert [(s.mine.sessions, s.theirs.sessions) for s in found.strata] == [(0, 1), (1, 0)]
    yesterday = [Asked(NOON - timedelta(days=1), "b", OLD, 1, OLD)]
    assert sessions(
        join([Asked(NOON, "b", NEW, 5, NEW), Asked(NOON, "d", OLD, 5, OLD)], before=yesterday)
    ) == (0, 1)


def test_a_promotion_ends_what_is_counted(join: Callable[..., ClickedDay]) -> None:
    rows = [
        Asked(NOON, "a", OLD, 5, OLD),
        Asked(NOON + timedelta(hours=5), "a", NEW, 6, NEW),
        Asked(NOON, "b", NEW, 5, NEW),
    ]
    found = join(rows, [(NOON + timedelta(hours=5, minutes=1), "a")])
    assert found.strata == (Stratum(Arm(1, 1, 0, 1, 0, 0), Arm(1, 1, 0, 1, 0, 0)),)


@pytest.mark.parametrize("old", [False, True], ids=["by move", "by time"])
def test_night_and_day_have_no_stratum(join: Callable[..., ClickedDay], old: bool) -> None:
    """Released at 04:00 without a canary: no session could have got either."""
    night, day = datetime(2011, 8, 29, 3), datetime(2011, 8, 29, 15)
    rows = [Asked(night, f"n{n}", OLD, 1, OLD) for n in range(300)] + [
        Asked(day, f"d{n}", NEW, 2, NEW) for n in range(300)
    ]
    assert join(rows, old=old, windows=()).strata == ()
    assert sessions(join(rows, old=old, windows=(FIRST,))) == (0, 0)


def test_callers_of_before_are_placed_by_time(join: Callable[..., ClickedDay]) -> None:
    edge = FIRST.begins.replace(tzinfo=None)
    rows = [Asked(edge + timedelta(seconds=5), "follows", OLD), Asked(edge + MINUTE, "a", OLD), Asked(edge + MINUTE, "b", NEW),
            Asked(edge - MINUTE, "early", OLD), Asked(edge + MINUTE, "third", 20110701001)]  # fmt: skip
    assert sessions(join(rows, old=True)) == (1, 1)


def test_a_program_does_not_outweigh_the_customers(join: Callable[..., ClickedDay]) -> None:
    rows = [Asked(NOON + timedelta(seconds=n), "program", NEW, 5, NEW) for n in range(500)]
    (stratum,) = join(rows).strata
    assert (stratum.mine.sessions, stratum.mine.n) == (1, 20)


def test_an_empty_answer_is_one_that_nobody_clicked(join: Callable[..., ClickedDay]) -> None:
    """Left out, a canary that answers nothing would have no lower click-through."""
    found = join([Asked(NOON, "a", NEW, 5, NEW, ()), Asked(NOON, "b", OLD, 5, OLD)])
    assert sessions(found) == (1, 1) and found.joined == (Joined(OLD, 1, 0),)
