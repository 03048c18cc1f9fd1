"""Do what was decided, by the ways that people use: the same rollback, the same log, the same hold."""

from __future__ import annotations

from datetime import date

from reshelve.config.ranker import Ranker
from reshelve.deployments import freeze
from reshelve.deployments.deployment_log import Pointer, read_pointer
from reshelve.errors import ConfigurationError, DataError, ReshelveError, TryAgainError
from reshelve.monitoring.observations import Action, WatchDecision
from reshelve.rollout.roll_back import rollback, withdraw
from reshelve.store.objects import ObjectStore
from reshelve.store.roles import Role

BY = "watch"
_LONGEST_REASON = 300


def act(
    store: ObjectStore, ranker: Ranker, decision: WatchDecision, learn_from: date | None
) -> tuple[str, bool]:
    """(What was done, whether it was). Never raises for what a service does: the next look would otherwise not be made."""
    reason = f"{decision.condition.value}: {decision.reason}"[:_LONGEST_REASON]
    try:
        if decision.action is Action.ROLL_BACK:
            return _roll_back(store, ranker, decision, reason)
        if decision.action is Action.WITHDRAW:
            _still(store, ranker, decision, "canary")
            withdraw(ranker.name, version=decision.version, by=BY, reason=reason, role=Role.RELEASE)
            return f"the canary {decision.version} was withdrawn", True
        if decision.action is Action.HOLD:
            found = freeze.hold(store, ranker.name, by=BY, reason=reason, cause=decision.cause)
            return f"releases are frozen since {found.at:%Y-%m-%d %H:%M} UTC by {found.by}", True
        if decision.action is Action.RETRAIN:
            return f"retrain_{ranker.name} is to be started for {learn_from}", True
    except ReshelveError as error:
        return f"{decision.action.value} failed: {error.headline}", False
    return "", False


def planned(ranker: Ranker, decision: WatchDecision, learn_from: date | None) -> str:
    """What `act` would do."""
    return {
        Action.ROLL_BACK: f"would roll back from version {decision.version}",
        Action.WITHDRAW: f"would withdraw the canary {decision.version}",
        Action.HOLD: "would freeze releases",
        Action.RETRAIN: f"would have retrain_{ranker.name} started for {learn_from}",
    }.get(decision.action, "")


def _roll_back(store: ObjectStore, ranker: Ranker, decision: WatchDecision, reason: str) -> tuple[str, bool]:
    seen = _still(store, ranker, decision, "stable")
    try:
        done = rollback(
            ranker.name, to=None, by=BY, reason=reason, if_sequence=seen.sequence, role=Role.RELEASE
        )
    except (TryAgainError, ConfigurationError) as error:
        pointer = read_pointer(store, ranker.name)
        if pointer is None or pointer.stable == decision.version:
            raise
        return (
            f"the pointer is at version {pointer.stable} again; agents do not follow yet: {error.headline}",
            True,
        )
    return f"version {done['version']} serves again in place of {done['from']}", True


def _still(store: ObjectStore, ranker: Ranker, decision: WatchDecision, role: str) -> Pointer:
    """The pointer. Raises DataError where somebody moved it since the look."""
    pointer = read_pointer(store, ranker.name)
    if pointer is None or getattr(pointer, role) != decision.version:
        raise DataError(f"{ranker.name}: version {decision.version} is not the {role} one any more")
    return pointer
