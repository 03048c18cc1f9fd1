"""A canary that is held for its clicks: real log entries, requests and clicks on a real store, and the step that judges them."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.deployed import put_entry

from reshelve.clickstream.events import EVENT_SCHEMA, validated_prefix
from reshelve.clickstream.privacy import Key, pseudonym
from reshelve.client.request_log import Logged, requests_prefix, table
from reshelve.client.routing import meant_version
from reshelve.config.ranker import Ranker
from reshelve.deployments.deployment_log import Entry, Pointer
from reshelve.deployments.release_table import Plan, ReleaseState
from reshelve.monitoring.watch import look
from reshelve.protocol.traffic import Meter, write_traffic
from reshelve.rollout.canary_analysis import StepAnalysis, StepOutcome
from reshelve.rollout.steps import STAGES, Work
from reshelve.store.objects import ObjectStore
from reshelve.validation.verdicts import PartitionDecision, verdict_key
from reshelve.validation.verdicts import PartitionVerdict as PartitionVerdict

YESTERDAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
NOON = YESTERDAY + timedelta(hours=12)
OLD, NEW = 20110828001, 20110829001
KEYS = (Key(YESTERDAY.date(), "the-secret-of-the-shop"),)
OFFERED: dict[str, Any] = {
    "stable": OLD,
    "canary": NEW,
    "plan": Plan(shares=(0.5,)),
    "state": ReleaseState.LOADING,
}
CANARY = {**OFFERED, "state": ReleaseState.CANARY, "share": 0.5, "step": 1}


@pytest.fixture
def ranker() -> Ranker:
    return Ranker.model_validate(
        {
            "name": "recommend", "title": "The next item", "kind": "next_item", "data": {"source": "retail"},
            "gates": {"metric": "recall@20"},
            "release": {"canary": {"shares": [0.5], "min_requests": 100, "step_minutes": 0.01,
                                   "clicks": {"max_drop": 0.05, "min_sessions": 500}}},
        }
    )  # fmt: skip


@pytest.fixture
def under_way(store: ObjectStore) -> Pointer:
    """Since yesterday at 11:00 half of the sessions get the canary, and errors and latencies are alike."""
    moves = [
        ("promote", {"stable": OLD}),
        ("offer", OFFERED),
        ("vouch", CANARY),  # a person vouches for this state: what follows is legal
        ("hold", {**CANARY, "held": "clicks"}),
    ]
    for sequence, (action, values) in enumerate(moves, 1):
        at = YESTERDAY + timedelta(hours=8 + sequence)
        pointer = Pointer(ranker="recommend", sequence=sequence, moved_at=at, **values)
        put_entry(store, Entry(sequence=sequence, action=action, pointer=pointer))
    meter = Meter("shop")
    for _ in range(3000):
        for version in (OLD, NEW):
            meter.add(3, version, 8.0)
    write_traffic(store, "recommend", meter.report())
    return pointer


@pytest.fixture
def customers(store: ObjectStore, under_way: Pointer) -> Callable[..., None]:
    """`customers(3000, {OLD: 4, NEW: 10})`: so many sessions, one of so many clicks, as the log and the partition have it."""

    def come(count: int, every: dict[int, int]) -> None:
        rows, clicks = [], []
        for number in range(count):
            session, at = f"visit {number}", NOON + timedelta(seconds=number)
            version = meant_version(under_way, session)
            assert version is not None
            rows.append(
                Logged(at, session, version, "", "serving_default", "mug", ("i1",), (0.5,), 3, version)
            )
            if number % every[version] == 0:
                named = {"event_time": at.replace(tzinfo=None), "event_type": "click", "item_id": "i1",
                         "session_id": pseudonym(session, KEYS, NOON.date())}  # fmt: skip
                clicks.append(dict.fromkeys(EVENT_SCHEMA.names) | named)
        day = NOON.date()
        store.put(f"{requests_prefix('recommend', day)}part.parquet", parquet(table(rows, KEYS, day)))
        good = pa.Table.from_pylist(clicks, EVENT_SCHEMA)
        store.put(f"{validated_prefix('retail', day)}x/good.parquet", parquet(good))

    return come


def parquet(made: pa.Table) -> bytes:
    body = io.BytesIO()
    pq.write_table(made, body)
    return body.getvalue()


def validate(store: ObjectStore, decision: PartitionDecision = PartitionDecision.PASS) -> None:
    found = PartitionVerdict(
        verdict=decision,
        headline="",
        source="retail",
        partition=NOON.date(),
        folder="x/",
        digest=decision.value,
    )
    store.put_json(verdict_key("retail", NOON.date()), found.result())


def step(store: ObjectStore, ranker: Ranker, pointer: Pointer) -> StepAnalysis:
    return STAGES[ReleaseState.CANARY].work(Work(store, ranker, NEW, pointer))


def test_a_canary_waits_for_its_clicks_and_then_goes_back(
    store: ObjectStore, ranker: Ranker, under_way: Pointer, customers: Callable[..., None]
) -> None:
    customers(4000, {OLD: 4, NEW: 10})
    before = step(store, ranker, under_way)
    assert before.verdict is StepOutcome.HOLD
    assert (
        "too few sessions: 0 sessions" in before.reason
        and f"not known yet: the clicks of {NOON.date()}" in before.reason
    )
    validate(store, PartitionDecision.STOP)
    assert step(store, ranker, under_way).verdict is StepOutcome.HOLD, (
        "clicks of a stopped day are not believed"
    )
    validate(store)
    found = step(store, ranker, under_way)
    assert found.verdict is StepOutcome.ROLL_BACK and "click-through lower by" in found.reason
    assert found.evidence["clicks"]["drop"][0] > 0.4 and found.evidence["requests"]["canary"] == 3000
    unasked = ranker.with_values({"release.canary.clicks.max_drop": None})
    assert step(store, unasked, under_way).verdict is StepOutcome.PROMOTE, "off by default"


def test_a_canary_that_may_lose_clicks_is_held_and_goes_on_when_it_has_waited(
    store: ObjectStore, ranker: Ranker, under_way: Pointer, customers: Callable[..., None]
) -> None:
    customers(4000, {OLD: 4, NEW: 4})
    validate(store)
    found = step(store, ranker, under_way)
    assert found.verdict is StepOutcome.HOLD and "inconclusive: click-through lower by" in found.reason
    waited = ranker.with_values({"release.canary.clicks.wait_hours": 0.5})
    assert step(store, waited, under_way).verdict is StepOutcome.PROMOTE
    many = {"release.canary.clicks.wait_hours": 0.5, "release.canary.clicks.min_sessions": 5000}
    assert step(store, ranker.with_values(many), under_way).verdict is StepOutcome.HOLD, "time is no evidence"


def test_the_watch_has_a_held_canary_asked_again_when_its_clicks_come(
    store: ObjectStore, ranker: Ranker, under_way: Pointer, customers: Callable[..., None]
) -> None:
    customers(2000, {OLD: 4, NEW: 4})
    assert look(ranker)["release"] is None
    validate(store)
    again = look(ranker)
    assert again["release"] == NEW, again
    assert look(ranker)["release"] is None, "once for a day"


def test_the_watch_withdraws_a_canary_that_is_clicked_less(
    store: ObjectStore, ranker: Ranker, under_way: Pointer, customers: Callable[..., None]
) -> None:
    customers(4000, {OLD: 4, NEW: 10})
    validate(store)
    found = look(ranker)
    assert (found["condition"], found["action"], found["release"]) == ("bad canary", "withdraw", None), found
