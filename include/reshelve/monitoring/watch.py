"""One look at a ranker: collect, judge, decide, act within bounds, keep what was found. `reshelve monitor` makes it.

A look that is killed costs nothing: what it had not yet kept is judged by the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from functools import partial
from typing import Any

from reshelve.config.ranker import Ranker
from reshelve.deployments import freeze
from reshelve.deployments.deployment_log import read_pointer
from reshelve.deployments.release_table import Event, ReleaseState
from reshelve.errors import DataError
from reshelve.monitoring import observations
from reshelve.monitoring.act import act, planned
from reshelve.monitoring.clicks import join_clicks
from reshelve.monitoring.collect import Collected, collect, stable_since
from reshelve.monitoring.decisions import TABLE, Situation, decide
from reshelve.monitoring.drift import check_drift
from reshelve.monitoring.guard import guarded, news
from reshelve.monitoring.observations import (
    Action,
    Condition,
    Finding,
    Observation,
    VersionTraffic,
    WatchDecision,
)
from reshelve.monitoring.own_probe import TESTED, doubt
from reshelve.monitoring.server_page import since
from reshelve.monitoring.service import (
    check_agents,
    check_data,
    check_lateness,
    check_log,
    check_overload,
    check_season,
    check_traffic,
)
from reshelve.monitoring.trouble import CHECKS
from reshelve.monitoring.versions import check_versions
from reshelve.monitoring.watch_state import Memory, read_memory, settle_act, together, write_memory
from reshelve.monitoring.wording import tell
from reshelve.protocol.traffic import Counts
from reshelve.rollout.clicked import Joined
from reshelve.store.objects import ObjectStore, object_store
from reshelve.validation.verdicts import PartitionVerdict

_CLEAR_LOOKS = 2  # without its cause, before the watch lifts its own hold
Witness = Callable[[Collected, Finding], str]
_HOLDING = {row.condition for row in TABLE if row.action is Action.HOLD}


def look(ranker: Ranker, *, now: datetime | None = None, dry_run: bool = False) -> dict[str, Any]:
    """Look once, and answer what was found, decided and done.

    `retrain` is the day to learn from, `release` the version whose release waited for a hold that is over, or for clicks
    that have come; or None. Before the first release nothing is looked at: `released` is false.

    Raises TryAgainError where the store is away or another look is being made. `dry_run` writes nothing.
    """
    store, now = object_store(), now or datetime.now(UTC)
    if read_pointer(store, ranker.name) is None:
        headline = f"{ranker.name}: nothing has been released yet, so there is nothing to monitor"
        return {"ranker": ranker.name, "headline": headline, "released": False, "alert": False}
    memory, etag = read_memory(store, ranker.name)
    seen = collect(store, ranker, now)
    joined = memory.joined
    observation = judge(store, seen, memory, partial(doubt, store))
    assert observation.decision is not None
    decision, learn_from = observation.decision, _learn_from(seen.verdict)
    if dry_run:
        decision = decision.model_copy(update={"done": planned(ranker, decision, learn_from)})
        return tell(observation.model_copy(update={"decision": decision}), dry_run=True)
    lifting = _lifts(seen, observation, memory)
    begun = memory.begin(decision, now)
    write_memory(
        store, ranker.name, memory, etag
    )  # before anything is done: of two looks at once, one may act
    done, happened = act(store, ranker, decision, learn_from)
    lifted = freeze.lift(store, ranker.name) if lifting else None
    decision = decision.model_copy(update={"done": done, "alert": decision.alert or begun is not None})
    observation = observation.model_copy(update={"decision": decision, "held": _held(store, ranker.name)})
    observations.write(store, observation)
    if begun is not None:
        settle_act(store, ranker.name, begun, happened=happened)
    retraining = happened and decision.action is Action.RETRAIN
    return tell(
        observation,
        retrain=learn_from if retraining else None,
        release=_asked_again(seen, decision, joined, memory) if lifted is None else lifted.waiting,
        requested_by=seen.pointer.plan.requested_by if lifted is None else lifted.requested_by,
    )


def judge(store: ObjectStore, seen: Collected, memory: Memory, witness: Witness | None = None) -> Observation:
    """What a look finds and the guarded table answers; `memory` becomes that of after the look.

    `witness` is asked before a version is taken back for what clients report: what it answers is why not.
    """
    rules = seen.ranker.watch
    memory.stable = stable_since(store, seen.pointer, memory.stable)
    by_client = memory.fresh(seen.reports)
    fresh = together(by_client)
    _forget(seen, memory)
    check_overload(seen, memory, fresh)
    check_versions(seen, memory, fresh, by_client)
    measured = check_drift(seen, memory, fresh)
    clicks, of_clicks = join_clicks(store, seen, memory)[1:]
    measured |= of_clicks
    check_log(seen, memory)
    check_agents(seen, memory)
    check_data(seen, memory)
    check_lateness(seen, memory)
    check_traffic(seen, memory, fresh)
    measured |= check_season(seen, memory, fresh)
    if memory.at is not None:
        measured |= since(seen.page, memory.page, (seen.now - memory.at).total_seconds())
    decision, findings = _decided(seen, memory, witness)
    telling = [one for one in findings if one.condition is not Condition.INCONCLUSIVE]
    new = news(telling, memory, rules.guard, seen.now)
    before, memory.at, memory.page = memory.at, seen.now, seen.page
    return Observation(
        ranker=seen.ranker.name,
        at=seen.now,
        since=before,
        sequence=seen.pointer.sequence,
        versions=_traffic(seen, fresh, clicks),
        agents=seen.agents,
        measured=measured,
        findings=tuple(findings),
        decision=decision.model_copy(update={"alert": bool(new)}),
        held="" if seen.hold is None else seen.hold.reason,
    )


def _decided(seen: Collected, memory: Memory, witness: Witness | None) -> tuple[WatchDecision, list[Finding]]:
    """The guarded decision and what it was made of. What the witness doubts is the service's, and is decided anew."""
    while True:
        findings = sorted(memory.standing.values(), key=lambda one: list(Condition).index(one.condition))
        decision = guarded(
            decide(findings, _situation(seen, memory)), memory, seen.ranker.watch.guard, seen.now
        )
        if witness is None or decision.action not in (Action.ROLL_BACK, Action.WITHDRAW):
            return decision, findings
        key, finding = next((key, one) for key, one in memory.standing.items() if one.cause == decision.cause)
        why = witness(seen, finding) if finding.check in TESTED else ""
        if not why:
            return decision, findings
        reason = f"{finding.reason}; no version is blamed: {why}"
        changed = {"condition": Condition.BAD_SERVICE, "reason": reason}
        memory.standing[key] = finding.model_copy(update=changed)


def _forget(seen: Collected, memory: Memory) -> None:
    """What was found of a version that is nothing any more, or that is something else now, stands no longer."""
    pointer = seen.pointer
    memory.keep_versions(v for v in (pointer.stable, pointer.canary, pointer.previous) if v is not None)
    roles = {Condition.BAD_CANARY: pointer.canary, Condition.BAD_VERSION: pointer.stable}
    for key, finding in list(memory.standing.items()):
        of_stable = key in CHECKS and finding.version != pointer.stable
        of_canary = key == "canary" and finding.version != pointer.canary
        if of_stable or of_canary or finding.version != roles.get(finding.condition, finding.version):
            del memory.standing[key]


def _situation(seen: Collected, memory: Memory) -> Situation:
    """A rollback takes away the way back: what was before it is what somebody went back from."""
    verdict, stable = seen.verdict, memory.stable
    good = verdict is not None and verdict.usable
    return Situation(
        way_back=seen.pointer.previous is not None and stable is not None and stable.came_by == Event.PROMOTE,
        good_data=good,
        newer_data=verdict is not None and (seen.newest is None or seen.newest < verdict.partition),
    )


def _learn_from(verdict: PartitionVerdict | None) -> date | None:
    return verdict.partition if verdict is not None and verdict.usable else None


def _lifts(seen: Collected, observation: Observation, memory: Memory) -> bool:
    """Whether the watch's own hold goes: its cause has been gone for a while."""
    if (
        seen.hold is None
        or not seen.hold.cause
        or any(finding.condition in _HOLDING for finding in observation.findings)
    ):
        memory.suspects.pop("hold", None)
        return False
    memory.suspects["hold"] = memory.suspects.get("hold", 0) + 1
    return memory.suspects["hold"] >= _CLEAR_LOOKS


def _asked_again(seen: Collected, decision: WatchDecision, joined: date | None, memory: Memory) -> int | None:
    """A canary that is held for its clicks, where a day's clicks have come since the look before."""
    pointer, moved = seen.pointer, decision.action in (Action.ROLL_BACK, Action.WITHDRAW)
    waits = pointer.state is ReleaseState.CANARY and bool(pointer.held) and seen.hold is None and not moved
    asks = seen.ranker.release.canary.clicks.max_drop is not None and memory.joined != joined
    return pointer.canary if waits and asks else None


def _held(store: ObjectStore, ranker: str) -> str:
    try:
        found = freeze.read_hold(store, ranker)
    except DataError as error:
        return error.headline
    return "" if found is None else found.reason


def _traffic(
    seen: Collected, fresh: dict[int, Counts], clicks: Sequence[Joined]
) -> tuple[VersionTraffic, ...]:
    """Of every version that serves or was asked."""
    pointer = seen.pointer
    serving = [v for v in (pointer.stable, pointer.canary, pointer.previous) if v is not None]
    joined = {one.version: one for one in clicks}
    found = []
    for version in dict.fromkeys([*serving, *sorted(fresh), *joined]):
        counts = fresh.get(version, Counts())
        answered = sum(counts.latency.values())
        p50, p95, p99 = (
            round(counts.at_rank(max(1.0, share * answered)), 3) if answered else None
            for share in (0.5, 0.95, 0.99)
        )
        found.append(
            VersionTraffic(
                version=version, role=seen.role(version), requests=counts.requests, errors=counts.failed,
                rejected=counts.misfits, refusals=counts.refusals,
                p50_ms=p50, p95_ms=p95, p99_ms=p99,
                clicks=joined[version].clicks if version in joined else None,
                clickable=joined[version].clickable if version in joined else None,
            )
        )  # fmt: skip
    return tuple(found)
