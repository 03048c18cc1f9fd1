"""A version is bad where its own requests show it surely, and only then."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from reshelve.deployments.deployment_log import Pointer
from reshelve.deployments.release_table import ReleaseState
from reshelve.monitoring.collect import Collected
from reshelve.monitoring.observations import AgentSeen, Condition, Finding
from reshelve.monitoring.versions import check_versions
from reshelve.monitoring.watch_state import Memory, VersionRecord
from reshelve.protocol.traffic import Counts

NOON = datetime(2011, 8, 30, 12, tzinfo=UTC)
OLD, NEW = 20110828001, 20110829001  # as in conftest


def counts(requests: int, failed: int = 0, milliseconds: float = 10.0) -> Counts:
    made = Counts()
    for number in range(requests):
        slow = milliseconds * (1 + 0.3 * (number % 10) / 10)
        made.add(None, "TooSlowError") if number < failed else made.add(slow)
    return made


def found(seen: Collected, memory: Memory, fresh: dict[int, Counts]) -> dict[str, Finding]:
    check_versions(seen, memory, fresh)
    return memory.standing


@pytest.mark.parametrize(
    ("requests", "failed", "bad"),
    [
        pytest.param(1000, 0, False, id="none fails"),
        pytest.param(1000, 25, False, id="too many, but it may be chance"),
        pytest.param(1000, 60, True, id="surely too many"),
        pytest.param(30, 30, True, id="few requests, and all fail"),
        pytest.param(19, 19, False, id="so few that nothing is said"),
        pytest.param(99, 4, False, id="fewer than are needed"),
    ],
)
def test_errors(see: Callable[..., Collected], memory: Memory, requests: int, failed: int, bad: bool) -> None:
    standing = found(see(), memory, {NEW: counts(requests, failed)})
    assert ("errors" in standing) is bad
    if bad:
        assert (standing["errors"].condition, standing["errors"].version) == (Condition.BAD_VERSION, NEW)
        assert "TooSlowError" in standing["errors"].reason


def test_requests_of_several_looks_are_judged_together(see: Callable[..., Collected], memory: Memory) -> None:
    memory.versions[OLD] = VersionRecord(baseline=counts(2000))
    for minutes in (0, 10):
        assert not found(see(minutes), memory, {NEW: counts(40, milliseconds=20)})
    assert "latency" in found(see(20), memory, {NEW: counts(40, milliseconds=20)})


@pytest.mark.parametrize(
    ("slower", "requests", "bad"),
    [
        pytest.param(1.0, 500, False, id="as fast"),
        pytest.param(1.3, 500, False, id="slower than it may not be"),
        pytest.param(2.0, 500, True, id="twice as slow"),
        pytest.param(2.0, 90, False, id="twice as slow, of too few requests"),
    ],
)
def test_a_new_version_is_compared_with_the_one_before(
    see: Callable[..., Collected], memory: Memory, slower: float, requests: int, bad: bool
) -> None:
    memory.versions[OLD] = VersionRecord(baseline=counts(2000))
    standing = found(see(), memory, {NEW: counts(requests, milliseconds=10 * slower)})
    assert ("latency" in standing) is bad


def test_what_nobody_can_compare_is_held_to_the_limit_alone(
    see: Callable[..., Collected], memory: Memory
) -> None:
    slow = {NEW: counts(500, milliseconds=90)}
    assert not found(see(), memory.model_copy(deep=True), slow)
    standing = found(see(rules={"watch.max_p95_ms": 80}), memory, slow)
    assert (
        standing["latency"].condition is Condition.BAD_VERSION
        and "80 ms is allowed" in standing["latency"].reason
    )


@pytest.mark.parametrize(
    ("hours", "agents", "words"),
    [
        pytest.param(30, {}, "stable for longer", id="a version that was good for a day is not to blame"),
        pytest.param(
            1,
            {"agents": (AgentSeen(agent="a", live=True, age_seconds=1, error="the model server is away"),)},
            "no agent reports",
            id="nor is one whose server is away",
        ),
        pytest.param(1, {"agents": ()}, "no agent reports", id="nor one whose agents are dead"),
    ],
)
def test_the_service_is_blamed(
    see: Callable[..., Collected], memory: Memory, hours: float, agents: dict[str, Any], words: str
) -> None:
    assert memory.stable is not None
    memory.stable.since = NOON - timedelta(hours=hours)
    standing = found(see(**agents), memory, {NEW: counts(500, 100)})
    assert standing["errors"].condition is Condition.BAD_SERVICE and words in standing["errors"].reason


def test_it_is_well_again(see: Callable[..., Collected], memory: Memory) -> None:
    assert "errors" in found(see(), memory, {NEW: counts(200, 50)})
    assert "errors" in found(see(10), memory, {NEW: counts(50)}), "too few to take it back"
    assert "errors" not in found(see(20), memory, {NEW: counts(100)})
    assert memory.versions[NEW].baseline.failed == 0, "what was bad became a measure of what is good"


def test_a_canary_is_compared_with_the_stable_version_of_the_same_time(
    see: Callable[..., Collected], memory: Memory
) -> None:
    pointer = Pointer(
        ranker="recommend",
        sequence=9,
        stable=OLD,
        canary=NEW,
        state=ReleaseState.CANARY,
        share=0.1,
        step=1,
        moved_at=NOON,
    )
    good = see(pointer=pointer, step={OLD: counts(900, 30), NEW: counts(300, 10)})
    assert not found(good, memory, {})
    bad = see(pointer=pointer, step={OLD: counts(900), NEW: counts(300, 40)})
    assert found(bad, memory, {})["canary"].condition is Condition.BAD_CANARY
