"""Requests of the log joined with the clicks of their day, in real Parquet files on a real store."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.deployed import put_entry

from reshelve.clickstream.events import EVENT_SCHEMA, validated_prefix
from reshelve.client.request_log import requests_prefix
from reshelve.deployments.deployment_log import Entry, Pointer
from reshelve.deployments.release_table import Plan, ReleaseState
from reshelve.monitoring.clicks import join_clicks
from reshelve.monitoring.collect import Collected
from reshelve.monitoring.decisions import Situation, decide
from reshelve.monitoring.observations import Action, Condition, Finding
from reshelve.monitoring.watch_state import Memory
from reshelve.rollout.clicked import Joined
from reshelve.store.objects import ObjectStore
from reshelve.validation.verdicts import PartitionDecision, PartitionVerdict, read_verdict, verdict_key

DAY = date(2011, 8, 29)
OLD, NEW = 20110828001, 20110829001  # as in conftest
NOON = datetime(2011, 8, 29, 12)


def parquet(table: pa.Table) -> bytes:
    body = io.BytesIO()
    pq.write_table(table, body)
    return body.getvalue()


def log(store: ObjectStore, rows: list[tuple[datetime, str, int]], day: date = DAY) -> None:
    """Requests of (time, session, version): each got i1, then i2."""
    count = len(rows)
    table = pa.table(
        {
            "at": pa.array([at for at, _, _ in rows], pa.timestamp("us")),
            "session": [session for _, session, _ in rows],
            "version": [version for _, _, version in rows],
            "items": [["i1", "i2"]] * count,
            "scores": pa.array([[0.3, 0.1]] * count, pa.list_(pa.float32())),
        }
    )
    store.put(f"{requests_prefix('recommend', day)}part.parquet", parquet(table))


def judged(
    store: ObjectStore,
    clicks: list[tuple[datetime, str, str]],
    decision: PartitionDecision = PartitionDecision.PASS,
    day: date = DAY,
) -> None:
    """The validated partition: clicks of (time, session, item)."""
    events = [
        {"event_time": at, "event_type": "click", "session_id": session, "item_id": item}
        for at, session, item in clicks
    ]
    table = pa.Table.from_pylist(
        [dict.fromkeys(EVENT_SCHEMA.names) | event for event in events], EVENT_SCHEMA
    )
    store.put(f"{validated_prefix('retail', day)}x/good.parquet", parquet(table))
    verdict = PartitionVerdict(verdict=decision, headline="", source="retail", partition=day, folder="x/")
    store.put_json(verdict_key("retail", day), verdict.result())


def test_only_what_was_shown_and_clicked_in_time_counts(
    store: ObjectStore, see: Callable[..., Collected], memory: Memory
) -> None:
    late = datetime(2011, 8, 29, 23, 50)
    log(store, [(NOON, "a", OLD), (NOON, "b", OLD), (NOON, "c", OLD), (NOON, "d", NEW), (late, "e", NEW)])
    minute = timedelta(minutes=1)
    clicks = [
        (NOON + minute, "a", "i2"),
        (NOON + 2 * minute, "a", "i1"),  # one request, however many clicks
        (NOON + minute, "b", "i9"),  # it was not shown
        (NOON + 45 * minute, "c", "i1"),  # too late
        (NOON - minute, "d", "i1"),  # too early
        (late + minute, "e", "i1"),  # its time for a click is not over within the day
    ]
    assert join_clicks(store, see(), memory) == (None, (), {}), "no verdict yet"
    judged(store, clicks)
    validated = see(verdict=read_verdict(store, "retail", DAY))
    day, joined, _ = join_clicks(store, validated, memory)
    assert (day, joined) == (DAY, (Joined(OLD, 3, 1), Joined(NEW, 1, 0)))
    assert join_clicks(store, validated, memory) == (None, (), {}), "a day is joined once"


def released(store: ObjectStore, *moves: tuple[str, float, dict[str, Any]]) -> Pointer:
    """A deployment log of (action, hour of DAY, what the pointer says), and the pointer at its end."""
    pointer = Pointer(ranker="recommend")
    for sequence, (action, hour, values) in enumerate(moves, 1):
        at = datetime(2011, 8, 29, tzinfo=UTC) + timedelta(hours=hour)
        pointer = Pointer(ranker="recommend", sequence=sequence, moved_at=at, **values)
        put_entry(store, Entry(sequence=sequence, action=action, pointer=pointer))
    return pointer


OFFERED: dict[str, Any] = {
    "stable": OLD,
    "canary": NEW,
    "plan": Plan(shares=(0.3,)),
    "state": ReleaseState.LOADING,
}
CANARY = {**OFFERED, "state": ReleaseState.CANARY, "share": 0.3, "step": 1}
BEFORE = ("promote", -24, {"stable": OLD})
UNDER_WAY = (BEFORE, ("offer", 9.9, OFFERED), ("probed", 10, CANARY))
PROMOTED = (*UNDER_WAY, ("promote", 20, {"stable": NEW, "previous": OLD}))
NO_WAY_BACK = (*UNDER_WAY, ("promote", 20, {"stable": NEW, "previous": 20110701001}))
AT_ONCE = (BEFORE, ("offer", 3.9, OFFERED), ("promote", 4, {"stable": NEW, "previous": OLD}))


def asks(count: int, version: int, at: datetime = NOON) -> list[tuple[datetime, str, int]]:
    """So many sessions, one request each, within an hour."""
    return [(at + timedelta(seconds=n % 3600), f"{version}-{n}", version) for n in range(count)]


def click_each(
    rows: list[tuple[datetime, str, int]], every: dict[int, int]
) -> list[tuple[datetime, str, str]]:
    """One session of `every[version]` clicks on what it was shown."""
    return [(at, s, "i1") for at, s, version in rows if int(s.rpartition("-")[2]) % every[version] == 0]


def looked(
    store: ObjectStore, see: Callable[..., Collected], memory: Memory, moves: tuple[Any, ...]
) -> tuple[Finding | None, dict[str, float]]:
    pointer = released(store, *moves)
    seen = see(pointer=pointer, verdict=read_verdict(store, "retail", DAY))
    _, _, measured = join_clicks(store, seen, memory)
    return memory.standing.get("clicks"), measured


@pytest.mark.parametrize(
    ("moves", "condition", "action"),
    [
        pytest.param(UNDER_WAY, Condition.BAD_CANARY, Action.WITHDRAW, id="a canary"),
        pytest.param(PROMOTED, Condition.BAD_VERSION, Action.ROLL_BACK, id="stable since"),
        pytest.param(NO_WAY_BACK, Condition.ODD, Action.ALERT, id="what it was compared with is gone"),
    ],
)
def test_a_version_that_is_clicked_less_by_sessions_that_could_have_got_either(
    store: ObjectStore,
    see: Callable[..., Collected],
    memory: Memory,
    moves: Any,
    condition: Condition,
    action: Action,
) -> None:
    rows = asks(2000, OLD) + asks(900, NEW)
    log(store, rows)
    judged(store, click_each(rows, {OLD: 4, NEW: 10}))  # 25 % and 10 %
    finding, measured = looked(store, see, memory, moves)
    assert finding is not None
    assert (finding.condition, finding.version) == (condition, NEW)
    assert "900 sessions of the canary, 2000 of stable" in finding.reason
    assert decide([finding], Situation(way_back=True)).action is action
    assert measured["calibration_error"] == pytest.approx(0.3 - (500 + 90) / 2900, abs=0.001)


def test_one_that_is_clicked_as_much_is_left_alone(
    store: ObjectStore, see: Callable[..., Collected], memory: Memory
) -> None:
    rows = asks(2000, OLD) + asks(900, NEW)
    log(store, rows)
    judged(store, click_each(rows, {OLD: 4, NEW: 4}))
    assert looked(store, see, memory, PROMOTED)[0] is None


def test_night_is_not_compared_with_day(
    store: ObjectStore, see: Callable[..., Collected], memory: Memory
) -> None:
    """Released at 04:00 without a canary, and nights are clicked more: pooled, the new version loses 60 % of its clicks."""
    rows = asks(2000, OLD, datetime(2011, 8, 29, 2)) + asks(2000, NEW, datetime(2011, 8, 29, 9))
    log(store, rows)
    judged(store, click_each(rows, {OLD: 4, NEW: 10}))
    finding, _ = looked(store, see, memory, AT_ONCE)
    assert finding is not None
    assert (
        finding.condition is Condition.INCONCLUSIVE and "no session could have got either" in finding.reason
    )
    decision = decide([finding], Situation(way_back=True))
    assert (decision.action, decision.alert) == (Action.NOTHING, False)


def test_a_canary_by_night_is_not_compared_with_stable_by_day(
    store: ObjectStore, see: Callable[..., Collected], memory: Memory
) -> None:
    """It had its share from 10:00 to 20:00: what stable got at night, and itself after, has no part in it."""
    night, evening = datetime(2011, 8, 29, 2), datetime(2011, 8, 29, 21)
    apart = asks(2000, OLD, night) + [(at, f"late-{s}", v) for at, s, v in asks(2000, NEW, evening)]
    same = [(at, f"day-{s}", v) for at, s, v in asks(600, OLD) + asks(300, NEW)]
    log(store, apart + same)
    judged(store, click_each(apart, {OLD: 2, NEW: 20}) + click_each(same, {OLD: 4, NEW: 4}))
    assert looked(store, see, memory, PROMOTED)[0] is None


def test_all_days_of_a_release_are_judged_together(
    store: ObjectStore, see: Callable[..., Collected], memory: Memory
) -> None:
    """Neither of two days alone is sure."""
    tomorrow = DAY + timedelta(days=1)
    for day, name in ((DAY, "a"), (tomorrow, "b")):
        at = datetime(day.year, day.month, day.day, 12)
        rows = [
            (at, f"{name}{session}", version)
            for at, session, version in asks(600, OLD, at) + asks(600, NEW, at)
        ]
        log(store, rows, day)
        judged(store, click_each(rows, {OLD: 4, NEW: 7}), day=day)
    pointer = released(store, *UNDER_WAY)
    seen = see(pointer=pointer, verdict=read_verdict(store, "retail", tomorrow), minutes=60 * 24)
    assert join_clicks(store, seen, memory)[0] == DAY and "clicks" not in memory.standing
    assert join_clicks(store, seen, memory)[0] == tomorrow
    assert memory.standing["clicks"].condition is Condition.BAD_CANARY
    assert "1200 sessions of the canary" in memory.standing["clicks"].reason


def test_a_part_that_cannot_be_read_does_not_stop_the_watch(
    store: ObjectStore, see: Callable[..., Collected], memory: Memory
) -> None:
    store.put(f"{requests_prefix('recommend', DAY)}part.parquet", b"damaged")
    judged(store, [])
    assert looked(store, see, memory, PROMOTED) == (None, {})
    assert memory.joined == DAY


def test_clicks_of_a_stopped_day_are_not_believed(
    store: ObjectStore, see: Callable[..., Collected], memory: Memory
) -> None:
    log(store, [(NOON, "a", NEW)])
    judged(store, [], PartitionDecision.STOP)
    newer = PartitionVerdict(
        verdict=PartitionDecision.PASS, headline="", source="retail", partition=DAY + timedelta(days=1)
    )
    assert join_clicks(store, see(verdict=newer), memory) == (None, (), {})
    assert memory.joined == DAY
