"""Whose fault it is: callers' own errors, busy servers, one client that says what the others do not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from reshelve.config.ranker import Ranker
from reshelve.deployments.deployment_log import Pointer
from reshelve.deployments.release_table import ReleaseState
from reshelve.monitoring.collect import Collected
from reshelve.monitoring.observations import Condition, Finding
from reshelve.monitoring.own_probe import ProbeAnswers, _contradiction, doubt
from reshelve.monitoring.service import check_overload
from reshelve.monitoring.versions import check_versions
from reshelve.monitoring.watch import judge
from reshelve.monitoring.watch_state import Memory, VersionRecord
from reshelve.protocol.traffic import BUSY, Counts, TrafficReport
from reshelve.rollout.canary_analysis import StepOutcome, judge_canary
from reshelve.store.objects import ObjectStore
from reshelve.validation.verdicts import PartitionDecision as DataDecision
from reshelve.validation.verdicts import PartitionVerdict as DataVerdict

OLD, NEW = 20110828001, 20110829001  # as in conftest
NOON = datetime(2011, 8, 30, 12, tzinfo=UTC)


def counts(good: int, failed: int = 0, rejected: int = 0, busy: int = 0, milliseconds: float = 10) -> Counts:
    made = Counts()
    for number in range(good):
        made.add(milliseconds * (1 + 0.3 * (number % 10) / 10))
    for _ in range(failed):
        made.add(None, "HTTP 500")
    for _ in range(rejected):
        made.add(None, rejected="HTTP 400")
    for _ in range(busy):
        made.add(None, BUSY, refusals=5)
    return made


def judged(seen: Collected, memory: Memory, by_client: dict[str, Counts]) -> dict[str, Finding]:
    total = Counts()
    for one in by_client.values():
        total = total.plus(one)
    check_overload(seen, memory, {NEW: total})
    check_versions(seen, memory, {NEW: total}, {name: {NEW: one} for name, one in by_client.items()})
    return memory.standing


@pytest.mark.parametrize("malformed", [25, 500, 5000])
def test_malformed_bodies_are_nobodys_failure(
    see: Callable[..., Collected], memory: Memory, malformed: int
) -> None:
    """25 of them took a version back once, with nothing else asked."""
    assert not judged(see(), memory, {"gateway": counts(0, rejected=malformed)})
    assert not judged(see(), memory, {"gateway": counts(200, rejected=malformed)})


def test_rejected_requests_do_not_thin_failures(see: Callable[..., Collected], memory: Memory) -> None:
    """Of the requests that fit 6 % fail, whatever else callers send."""
    standing = judged(see(), memory, {"gateway": counts(940, failed=60, rejected=20_000)})
    assert standing["errors"].condition is Condition.BAD_VERSION and "4.3%" in standing["errors"].reason


def test_a_new_version_that_rejects_what_the_one_before_answered_is_asked_about(
    see: Callable[..., Collected], memory: Memory
) -> None:
    memory.versions[OLD] = VersionRecord(baseline=counts(2000, rejected=40))
    assert not judged(see(), memory.model_copy(deep=True), {"gateway": counts(490, rejected=10)})
    standing = judged(see(), memory, {"gateway": counts(400, rejected=100)})
    assert standing["rejections"].condition is Condition.BAD_VERSION
    assert "HTTP 400" in standing["rejections"].reason


def test_overload_is_no_versions_fault(see: Callable[..., Collected], memory: Memory) -> None:
    """Refusals, the requests that gave up for them, and the slowness beside them."""
    memory.versions = {OLD: VersionRecord(baseline=counts(2000)), NEW: VersionRecord(baseline=counts(2000))}
    standing = judged(see(), memory, {"gateway": counts(400, busy=100, milliseconds=60)})
    assert standing["overload"].condition is Condition.BAD_SERVICE
    assert "all threads are busy" in standing["overload"].reason
    assert "errors" not in standing
    assert standing["latency"].condition is Condition.BAD_SERVICE
    assert "overloaded" in standing["latency"].reason
    assert "overload" in judged(see(10), memory, {"gateway": counts(20)}), "too few to take it back"
    assert not judged(see(20), memory, {"gateway": counts(500)})


@pytest.mark.parametrize(
    ("refusals", "found"), [pytest.param(30, False, id="may be chance"), pytest.param(90, True, id="surely")]
)
def test_a_share_of_refusals(
    see: Callable[..., Collected], memory: Memory, refusals: int, found: bool
) -> None:
    few = counts(500).model_copy(update={"refusals": refusals})
    assert ("overload" in judged(see(), memory, {"gateway": few})) is found


@pytest.mark.parametrize(
    ("clients", "bad", "lone"),
    [
        pytest.param({"a": counts(0, 500)}, True, "", id="there is one client alone"),
        pytest.param({"a": counts(0, 500), "b": counts(500)}, False, "a", id="one of two"),
        pytest.param({"a": counts(400, 100), "b": counts(400, 100)}, True, "", id="both"),
        pytest.param({"a": counts(0, 5000), "b": counts(60), "c": counts(60)}, False, "a", id="against two"),
        pytest.param({"a": counts(0, 500), "b": counts(30)}, False, "a", id="few requests, and they contradict"),
        pytest.param({"a": counts(0, 500), "b": counts(1)}, True, "", id="so few that they say nothing"),
        pytest.param({"a": counts(900, 100), "b": counts(9, 1)}, True, "", id="few requests, and they agree"),
    ],
)  # fmt: skip
def test_one_client_decides_nothing_alone(
    see: Callable[..., Collected], memory: Memory, clients: dict[str, Counts], bad: bool, lone: str
) -> None:
    finding = judged(see(), memory, clients)["errors"]
    assert (finding.condition is Condition.BAD_VERSION) is bad
    assert ("only the client" in finding.reason) is bool(lone) and lone in finding.reason


def test_one_slow_client_decides_nothing_alone(see: Callable[..., Collected], memory: Memory) -> None:
    memory.versions[OLD] = VersionRecord(baseline=counts(2000))
    two = {"a": counts(500, milliseconds=50), "b": counts(500)}
    finding = judged(see(), memory, two)["latency"]
    assert finding.condition is Condition.BAD_SERVICE and "only the client a" in finding.reason


def test_one_client_withdraws_no_canary(see: Callable[..., Collected], memory: Memory) -> None:
    pointer = Pointer(ranker="recommend", sequence=9, stable=OLD, canary=NEW, state=ReleaseState.CANARY, share=0.1, step=1,
                      moved_at=NOON)  # fmt: skip

    def report(client: str, failed: int) -> TrafficReport:
        of_canary = counts(300 - failed, failed)
        return TrafficReport(client=client, at=NOON, counts={9: {OLD: counts(900), NEW: of_canary}})

    def looked(*failed: int) -> Finding | None:
        reports = tuple(report(f"c{number}", count) for number, count in enumerate(failed))
        step = {NEW: Counts(), OLD: Counts()}
        for one in reports:
            step = {version: step[version].plus(one.counts[9][version]) for version in step}
        check_versions(see(pointer=pointer, reports=reports, step=step, step_began=9), memory, {})
        return memory.standing.get("canary")

    def condition(*failed: int) -> Condition | None:
        found = looked(*failed)
        return None if found is None else found.condition

    assert condition(0, 0) is None
    assert condition(300, 0) is Condition.BAD_SERVICE
    assert condition(60, 60) is Condition.BAD_CANARY
    assert condition(60) is Condition.BAD_CANARY, "there is no other client"


@pytest.mark.parametrize(
    ("canary", "stable", "verdict"),
    [
        pytest.param(counts(300, rejected=60), counts(900, rejected=180), StepOutcome.PROMOTE, id="callers' own meet both"),
        pytest.param(counts(300, rejected=60), counts(900), StepOutcome.ROLL_BACK, id="only the canary rejects"),
        pytest.param(counts(300, busy=30), counts(900), StepOutcome.PROMOTE, id="busy is no error of the canary"),
    ],
)  # fmt: skip
def test_a_canarys_rejections(ranker: Ranker, canary: Counts, stable: Counts, verdict: StepOutcome) -> None:
    assert judge_canary(stable, canary, ranker.release).verdict is verdict


BAD = Finding(condition=Condition.BAD_VERSION, check="errors", version=NEW, reason="", evidence={"error_rate": [0.3, 0.5]})  # fmt: skip
SLOW = Finding(condition=Condition.BAD_VERSION, check="latency", version=NEW, reason="", evidence={"p95_ms": [90, 99]})  # fmt: skip
REJECTS = Finding(condition=Condition.BAD_VERSION, check="rejections", version=NEW, reason="")
BOTH = Finding(condition=Condition.BAD_CANARY, check="canary", version=NEW, reason="",
               evidence={"error_increase": [0.3, 0.5], "latency_ratio": [3, 4]})  # fmt: skip


@pytest.mark.parametrize(
    ("finding", "version", "beside", "contradicted"),
    [
        pytest.param(BAD, counts(100), counts(100), True, id="all are answered"),
        pytest.param(BAD, counts(10), counts(10), False, id="so few that it may fail so often"),
        pytest.param(BAD, counts(60, 40), counts(100), False, id="it fails so often"),
        pytest.param(SLOW, counts(100), counts(100), True, id="as fast as the other"),
        pytest.param(SLOW, counts(100, milliseconds=40), counts(100), False, id="as slow as it is told"),
        pytest.param(SLOW, counts(100), counts(0), False, id="nothing to compare with"),
        pytest.param(REJECTS, counts(100), counts(100), True, id="what fits is answered"),
        pytest.param(REJECTS, counts(0, 100), counts(100), False, id="what fits is refused"),
        pytest.param(BOTH, counts(100), counts(100), True, id="both claims are wrong"),
        pytest.param(BOTH, counts(100, milliseconds=40), counts(100), False, id="one of two claims is right"),
    ],
)
def test_what_contradicts_a_report(
    ranker: Ranker, finding: Finding, version: Counts, beside: Counts, contradicted: bool
) -> None:
    told = ProbeAnswers(version=version, beside=beside)
    assert bool(_contradiction(told, finding, ranker)) is contradicted


def test_what_is_doubted_does_not_keep_others_from_being_done(
    see: Callable[..., Collected], memory: Memory, store: ObjectStore
) -> None:
    """A forged report would otherwise hide every other condition behind an alert."""
    report = TrafficReport(client="a", at=NOON, counts={8: {NEW: counts(0, 500)}})
    memory.clients = {"a": {}}
    asked: list[Finding] = []

    def witness(seen: Collected, finding: Finding) -> str:
        asked.append(finding)
        return "it says otherwise"

    stop = DataDecision.STOP

    stopped = DataVerdict(verdict=stop, headline="gone", source="retail", partition=NOON.date())
    found = judge(store, see(reports=(report,), verdict=stopped), memory, witness)
    assert found.decision is not None
    assert len(asked) == 1 and found.decision.action.value == "hold"
    assert {finding.condition for finding in found.findings} == {Condition.BAD_SERVICE, Condition.BROKEN_DATA}


def test_a_version_that_cannot_be_asked_is_not_taken_back(
    see: Callable[..., Collected], store: ObjectStore
) -> None:
    assert "could not query it itself" in doubt(store, see(servers=("127.0.0.1:1",)), BAD)
