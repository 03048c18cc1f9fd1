"""Roll a published version out, take one back, and say what serves. The log and the pointer are the only state.

Every step can be asked for again: a release killed anywhere is resumed by releasing the same version again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from reshelve.config.ranker import Ranker
from reshelve.deployments.deployment_log import (
    Advance,
    Approve,
    Change,
    Offer,
    Pointer,
    Promote,
    Role,
    Withdraw,
    entry_at,
    move_pointer,
    moved_since,
    settle,
)
from reshelve.deployments.freeze import read_hold, remember_waiting, require_no_hold
from reshelve.deployments.leases import abandoned, lease_key, working
from reshelve.deployments.release_table import Event, Plan, ReleaseState
from reshelve.errors import ConfigurationError, DataError, ReshelveError, TryAgainError
from reshelve.logs import logger
from reshelve.protocol.reports import Report
from reshelve.rollout.approvers import approver
from reshelve.rollout.canary_analysis import StepAnalysis, StepOutcome
from reshelve.rollout.fleet import require_live, summary, wait_for_label
from reshelve.rollout.steps import STAGES, ReleaseStep, Work
from reshelve.store.manifest import Manifest, partition_of
from reshelve.store.objects import ObjectStore, object_store
from reshelve.store.versions import check_uploaded, require_manifest

__all__ = ["approve", "release", "require_releasable"]

_MOVES_READ = 100
_AGAIN = "again"  # in the evidence of a withdrawal: its release means to be tried again
_NEXT = "next"  # in the evidence of a withdrawal: the version whose release takes the place


@dataclass(frozen=True)
class _Mover:
    """Who moves one ranker's pointer, and with whose key."""

    store: ObjectStore
    ranker: str
    by: str
    role: Role

    def move(self, change: Change, reason: str, expected: int | None = None) -> Pointer:
        """See `move_pointer`."""
        return move_pointer(
            self.store, self.ranker, change, by=self.by, reason=reason, expected=expected, role=self.role
        )


class _Steps:
    """What was done, in order, with its time."""

    def __init__(self, ranker: str, version: int) -> None:
        self.done: list[dict[str, Any]] = []
        self._log = logger(ranker=ranker, version=version)
        self._since = time.monotonic()

    def add(self, step: str, detail: str) -> None:
        """Close a step."""
        now = time.monotonic()
        self.done.append({"step": step, "seconds": round(now - self._since, 2), "detail": detail})
        self._log.info(step, detail=detail)
        self._since = now


def release(
    ranker: Ranker,
    version: int,
    *,
    by: str,
    requested_by: str = "",
    reason: str = "",
    allow_older: bool = False,
    allow_held: bool = False,
    resume: bool = False,
    if_sequence: int | None = None,
    role: Role = Role.RELEASE,
) -> dict[str, Any]:
    """Take a version the way its plan says (`store.rollout`), until every live agent serves it as stable.

    Another version's release whose process gives no heartbeat any more is taken back first.

    The answer's `state`: promoted; unchanged (it was stable already); rolled_back (a step showed that it must not
    serve; the version before serves on, `headline` says why); held (a step cannot tell yet, a person has to
    approve (then `awaits_approval` is true, and `requested_by` who may not, where another person has to), or releases came to
    be held: the same call goes on from there). `requested_by`: who requests it, empty for nobody (`approvers.requester`); a
    release under way keeps who did.
    `resume`: this is such a call; what somebody took back meanwhile is then not offered again. `if_sequence`: begin
    only where nobody else has moved the pointer since that move (MovedError). Raises ConfigurationError or DataError where the version may not be released, TryAgainError where agents are away or slow,
    another release is under way, or releases are frozen. `role`: whose key signs; a version that the gate held needs a person's.
    """
    store, name = object_store(), ranker.name
    steps = _Steps(name, version)
    pointer = settle(store, name) or Pointer(ranker=name)
    manifest = _check(store, pointer, version, allow_older=allow_older, allow_held=allow_held)
    steps.add(
        "check",
        f"published from partition {manifest.lineage.partition}, gate verdict {manifest.gate.verdict}{_compared(manifest)}",
    )
    unchanged = pointer.stable == version
    if not unchanged:
        if resume:
            _require_not_taken_back(store, pointer, version)
        if if_sequence is not None:
            _require_own_moves(store, pointer, if_sequence, version, by)
        remember_waiting(store, name, version, requested_by)
        require_no_hold(store, name)
        if pointer.sequence:
            require_live(store, name)
        mover = _Mover(store, name, by, role)
        pointer = _take_over(mover, pointer, version, steps)
        held = manifest.gate.verdict != "promote"
        offer = Offer(version, _plan(ranker, held=held, requested_by=requested_by))
        expected = None if if_sequence is None else pointer.sequence
        with working(store, name, version, by):
            pointer = mover.move(offer, reason or "release", expected)
            ended = _go(mover, ranker, pointer, version, steps, reason=reason)
        if ended is not None:
            state, why = ended
            now = settle(store, name)
            waits = now is not None and (now.canary, now.state) == (version, ReleaseState.APPROVAL)
            found = _result(name, version, state, steps, require_live(store, name), why)
            asked = {"requested_by": now.plan.requested_by} if now is not None and waits else {}
            return {**found, **asked, "awaits_approval": waits, "sequence": now.sequence if now else 0}
        pointer = settle(store, name) or pointer
    reports = wait_for_label(store, name, pointer, version)
    steps.add("serve", f"{len(reports)} agents answer with {version} as stable")
    headline = f"{name} version {version} serves" + (" already" if unchanged else "")
    return _result(name, version, "unchanged" if unchanged else "promoted", steps, reports, headline)


def require_releasable(
    store: ObjectStore, pointer: Pointer, version: int, *, allow_older: bool = False, allow_held: bool = False
) -> None:
    """What `release` would refuse at its very beginning, for whoever asks before they start it. Changes nothing.

    Raises what `release` raises: ConfigurationError or DataError where the version may not be released, TryAgainError
    where another release is under way, releases are frozen, or no agent lives.
    """
    _check(store, pointer, version, allow_older=allow_older, allow_held=allow_held)
    require_no_hold(store, pointer.ranker)
    if pointer.sequence:
        require_live(store, pointer.ranker)
    if pointer.canary in (None, version) or abandoned(store, pointer) is None:
        Offer(version).apply(pointer)


def _plan(ranker: Ranker, *, held: bool, requested_by: str) -> Plan:
    steps = ranker.release.steps()
    return Plan(**steps, requested_by=requested_by if steps["another_person"] else "", allow_held=held)


def _take_over(mover: _Mover, pointer: Pointer, version: int, steps: _Steps) -> Pointer:
    """Withdraw another version's release that nobody works on. Should its process live after all, its next move fails."""
    other = pointer.canary
    quiet = None if other in (None, version) else abandoned(mover.store, pointer)
    if other is None or quiet is None:
        return pointer
    why = (
        f"its release has had no heartbeat for {quiet:.0f} s ({pointer.state.value}); version "
        f"{version} is next"
    )
    evidence = {"quiet_seconds": round(quiet), "state": pointer.state.value, _NEXT: version}
    moved = mover.move(Withdraw(other, evidence), why)
    mover.store.delete([lease_key(pointer.ranker, other)])
    steps.add("take over", f"version {other} was withdrawn: {why}")
    return moved


def _go(
    mover: _Mover, ranker: Ranker, pointer: Pointer, version: int, steps: _Steps, *, reason: str
) -> tuple[str, str] | None:
    """From state to state until the version is stable (None), or (`rolled_back` or `held`, why).

    The pointer alone says where the release is: another process may have taken it there. Agents that do not load it in
    time take the offer back, so that the next release is not locked out.
    """
    store, name = mover.store, ranker.name
    while pointer.stable != version:
        if (hold := read_hold(store, name)) is not None:
            remember_waiting(store, name, version, pointer.plan.requested_by)
            steps.add("hold", hold.reason)
            return "held", f"{name} version {version} waits: releases are frozen: {hold.reason}"
        if pointer.state is ReleaseState.READY:
            pointer = mover.move(Promote(version), reason or "every step was good")
            steps.add("promote", f"stable is {version}, previous is {pointer.previous}")
            continue
        if pointer.canary != version:
            raise _taken_back(pointer, version)
        if pointer.state is ReleaseState.APPROVAL:
            # The state says so. A move that says it again would make every page and question that shows it out of date.
            waits = f"waits for a person: reshelve approve --ranker {name} --version {version}"
            steps.add("hold", waits)
            return "held", f"{name} version {version} {waits}"
        stage = STAGES[pointer.state]
        try:
            found = stage.work(Work(store, ranker, version, pointer))
        except ReshelveError as error:
            now = settle(store, name)
            if now is not None and version not in (now.canary, now.stable):
                raise _taken_back(now, version) from error
            # A server that is busy or away, or a hiccup of S3, says nothing of the version: once it is loaded everywhere
            # its release waits where it is for the same call, and the next one's for its signs of life to end.
            says_something = not isinstance(error, TryAgainError) and pointer.state is not ReleaseState.CANARY
            if pointer.state is ReleaseState.LOADING or says_something:
                _withdraw(mover, version, steps, error.headline, {_AGAIN: True})
            raise
        if found.verdict is StepOutcome.ROLL_BACK:
            _withdraw(mover, version, steps, found.reason, found.evidence)
            return "rolled_back", found.reason
        pointer, held = _log(mover, pointer, version, stage, found), found.verdict is StepOutcome.HOLD
        if held and pointer.canary == version and pointer.held:
            steps.add("hold", found.reason)
            return "held", f"{name} version {version} is held ({pointer.state.value}): {found.reason}"
        steps.add(stage.words, found.reason)
    return None


def _taken_back(pointer: Pointer, version: int) -> DataError:
    """Never tried again: the retry would offer it once more, against the word of who took it back."""
    return DataError(
        f"{pointer.ranker}: version {version} is no longer being released",
        f"the deployment log's newest entry is by {pointer.by}: {pointer.reason}",
    )


def _require_not_taken_back(store: ObjectStore, pointer: Pointer, version: int) -> None:
    """Raises DataError where the newest release of a version ended otherwise than by its own hiccup."""
    ended = pointer.sequence
    if pointer.canary == version:
        return
    for sequence in range(ended - 1, max(0, ended - _MOVES_READ), -1):
        before = entry_at(store, pointer.ranker, sequence)
        if before.pointer.canary == version:
            last = entry_at(store, pointer.ranker, sequence + 1)
            if not last.evidence.get(_AGAIN):
                raise _taken_back(last.pointer, version)
            return


def _require_own_moves(store: ObjectStore, pointer: Pointer, sequence: int, version: int, by: str) -> None:
    """Raises MovedError where the moves after number `sequence` are not all this asker's own, of this version's release."""
    if not 0 <= pointer.sequence - sequence <= _MOVES_READ:
        raise moved_since(store, pointer, sequence)
    for number in range(sequence + 1, pointer.sequence + 1):
        entry = entry_at(store, pointer.ranker, number)
        gave_way = entry.evidence.get(_NEXT) == version or entry.evidence.get(_AGAIN)
        if entry.pointer.by != by or not (gave_way or entry.pointer.canary == version):
            raise moved_since(store, pointer, sequence)


def _log(mover: _Mover, pointer: Pointer, version: int, stage: ReleaseStep, found: StepAnalysis) -> Pointer:
    """Write down what a state found: on to the next one, or why it holds."""
    held = found.verdict is StepOutcome.HOLD
    change = Advance(
        version,
        Event.HOLD if held else stage.passes,
        pointer.state,
        pointer.step,
        found.evidence,
        found.reason[:300] if held else "",
    )
    return mover.move(change, found.reason[:300])


def approve(
    ranker: Ranker,
    version: int,
    *,
    by: str,
    user: str | None = None,
    reason: str = "",
    if_sequence: int | None = None,
) -> dict[str, Any]:
    """A person lets a release that waits for approval go on, and it is promoted at once.

    `user`: who is logged in to Airflow; None in a shell (`approvers`). Raises TryAgainError where the release does not wait
    for a person yet, or releases are frozen, DataError where it was taken back, or where others moved the pointer since
    move `if_sequence`, ConfigurationError where another person has to approve it.
    """
    store, name, words = object_store(), ranker.name, reason or "approved"
    require_no_hold(store, name)
    pointer = settle(store, name)
    if pointer is not None and pointer.canary == version:
        by = approver(pointer, user, by)
    moved = _Mover(store, name, by, Role.PERSON).move(Approve(version), words, if_sequence)
    # Its offer is not this person's word: what is taken back from here on stays back.
    return release(
        ranker, version, by=by, reason=reason, allow_older=True, allow_held=True,
        resume=True, if_sequence=moved.sequence, role=Role.PERSON,
    )  # fmt: skip


def _check(
    store: ObjectStore, pointer: Pointer, version: int, *, allow_older: bool, allow_held: bool
) -> Manifest:
    manifest = require_manifest(store, pointer.ranker, version)
    check_uploaded(store, manifest)
    if manifest.gate.verdict != "promote" and not allow_held:
        raise ConfigurationError(
            f"{pointer.ranker} version {version}: the gate said {manifest.gate.verdict}",
            "; ".join(manifest.gate.reasons) or "a person can release it anyway with --allow-held",
        )
    if (
        pointer.stable is not None
        and not allow_older
        and partition_of(version) < partition_of(pointer.stable)
    ):
        raise ConfigurationError(
            f"{pointer.ranker} version {version} is of an older partition than {pointer.stable}, which is stable",
            "to use an older version on purpose: `reshelve rollback`, or --allow-older",
        )
    return manifest


def _compared(manifest: Manifest) -> str:
    """What the gate measured against the version that served then, on the same questions."""
    champion = (manifest.gate.champion or {}).get("version")
    found = None if champion is None else manifest.gate.difference_to(champion)
    return (
        f"; {manifest.gate.metric} {found.signed} against version {champion} on the same questions"
        if found
        else ""
    )


def _withdraw(
    mover: _Mover, version: int, steps: _Steps, why: str, evidence: dict[str, Any] | None = None
) -> None:
    mover.move(Withdraw(version, evidence or {}), why[:300])
    steps.add("withdraw", why)


def _result(
    name: str, version: int, state: str, steps: _Steps, reports: list[Report], headline: str
) -> dict[str, Any]:
    return {
        "ranker": name,
        "version": version,
        "state": state,
        "headline": headline,
        "steps": steps.done,
        "agents": summary(reports),
    }
