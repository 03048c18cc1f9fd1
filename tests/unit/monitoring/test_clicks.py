"""Requests of the log joined with the clicks of their day, in real Parquet files on a real store."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import date, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reshelve.clickstream.events import EVENT_SCHEMA, validated_prefix
from reshelve.clickstream.verdicts import Decision, Verdict, read_verdict, verdict_key
from reshelve.monitoring.clicks import Joined, join_clicks
from reshelve.monitoring.collect import Seen
from reshelve.monitoring.memory import Memory
from reshelve.monitoring.observations import Condition
from reshelve.serving.request_log import requests_prefix
from reshelve.store.objects import ObjectStore

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
    decision: Decision = Decision.PASS,
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
    verdict = Verdict(verdict=decision, headline="", source="retail", partition=day, folder="x/")
    store.put_json(verdict_key("retail", day), verdict.result())


def test_only_what_was_shown_and_clicked_in_time_counts(
    store: ObjectStore, see: Callable[..., Seen], memory: Memory
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


@pytest.mark.parametrize(
    ("role", "condition"),
    [
        ({"stable": NEW, "previous": OLD}, Condition.BAD_VERSION),
        ({"stable": OLD, "previous": None}, Condition.ODD),
    ],
)
def test_a_version_that_is_clicked_less_on_the_same_day(
    store: ObjectStore, see: Callable[..., Seen], memory: Memory, role: dict[str, int], condition: Condition
) -> None:
    rows = [
        (NOON, f"{version}-{n}", version)
        for version, count in ((OLD, 2000), (NEW, 900))
        for n in range(count)
    ]
    log(store, rows)
    every = {OLD: 4, NEW: 10}  # 25 % and 10 %
    clicks = [(NOON, s, "i1") for _, s, version in rows if int(s.rpartition("-")[2]) % every[version] == 0]
    judged(store, clicks)
    seen = see()
    pointer = seen.pointer.model_copy(update=role)
    verdict = read_verdict(store, "retail", DAY)
    _, _, measured = join_clicks(store, see(pointer=pointer, verdict=verdict), memory)
    finding = memory.standing["clicks"]
    assert (finding.condition, finding.version) == (condition, NEW)
    assert measured["calibration_error"] == pytest.approx(0.3 - (500 + 90) / 2900, abs=0.001)


def test_clicks_of_a_stopped_day_are_not_believed(
    store: ObjectStore, see: Callable[..., Seen], memory: Memory
) -> None:
    log(store, [(NOON, "a", NEW)])
    judged(store, [], Decision.STOP)
    newer = Verdict(verdict=Decision.PASS, headline="", source="retail", partition=DAY + timedelta(days=1))
    assert join_clicks(store, see(verdict=newer), memory) == (None, (), {})
    assert memory.joined == DAY
