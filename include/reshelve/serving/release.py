"""Roll a published version out, take one back, and say what serves. The log and the pointer are the only state.

Every step can be asked for again: a release killed anywhere is resumed by releasing the same version again.
"""

from __future__ import annotations

import time
from typing import Any

from reshelve.errors import ConfigurationError, DataError, ReshelveError
from reshelve.logs import logger
from reshelve.rankers import Ranker
from reshelve.serving.fleet import require_live, summary, wait_for_agents
from reshelve.serving.judge import Finding, Verdict
from reshelve.serving.reports import Report
from reshelve.serving.stages import STAGES, Stage, Work
from reshelve.serving.status import status
from reshelve.store.deployments import (
    Advance,
    Approve,
    Offer,
    Pointer,
    Promote,
    Revert,
    Withdraw,
    entry_at,
    move_pointer,
    settle,
)
from reshelve.store.holds import forget_waiting, read_hold, remember_waiting, require_no_hold
from reshelve.store.leases import abandoned, lease_key, working
from reshelve.store.manifest import Manifest, partition_of
from reshelve.store.objects import ObjectStore, object_store
from reshelve.store.rollout import Event, Plan, State
from reshelve.store.versions import check_uploaded, require_manifest

__all__ = ["approve", "release", "rollback", "status", "withdraw"]

_LABEL_SECONDS = 60.0
_MOVES_READ = 100
_AGAIN = "again"  # in the evidence of a withdrawal: its release means to be tried again


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
    reason: str = "",
    allow_older: bool = False,
    allow_held: bool = False,
    resume: bool = False,
) -> dict[str, Any]:
    """Take a version the way its plan says (`store.rollout`), until every live agent serves it as stable.

    Another version's release whose process gives no sign of life any more is taken back first.

    The answer's `state`: promoted; unchanged (it was stable already); rolled_back (a step showed that it must not
    serve; the version before serves on, `headline` says why); held (a step cannot tell yet, a person has to
    approve (then `awaits_approval` is true), or releases came to be held: the same call goes on from there).
    `resume`: this is such a call; what somebody took back meanwhile is then not offered again. Raises
    ConfigurationError or DataError where the version may not be released, TryAgainError where agents are away or slow,
    another release is under way, or releases are held.
    """
    store, name = object_store(), ranker.name
    steps = _Steps(name, version)
    pointer = settle(store, name) or Pointer(ranker=name)
    manifest = _check(store, pointer, version, allow_older=allow_older, allow_held=allow_held)
    steps.add(
        "check",
        f"published from partition {manifest.lineage.partition}, gate verdict {manifest.gate.verdict}",
    )
    unchanged = pointer.stable == version
    if not unchanged:
        if resume:
            _require_not_taken_back(store, pointer, version)
        remember_waiting(store, name, version)
        require_no_hold(store, name)
        if pointer.sequence:
            require_live(store, name)
        _take_over(store, pointer, version, steps, by)
        offer = Offer(version, _plan(ranker))
        with working(store, name, version, by):
            pointer = move_pointer(store, name, offer, by=by, reason=reason or "release")
            ended = _go(store, ranker, pointer, version, steps, by=by, reason=reason)
        if ended is not None:
            state, why = ended
            now = settle(store, name)
            waits = now is not None and (now.canary, now.state) == (version, State.APPROVAL)
            found = _result(name, version, state, steps, require_live(store, name), why)
            return {**found, "awaits_approval": waits}
        pointer = settle(store, name) or pointer
    reports = _wait_for_label(store, name, pointer, version)
    steps.add("serve", f"{len(reports)} agents answer with {version} as stable")
    headline = f"{name} version {version} serves" + (" already" if unchanged else "")
    return _result(name, version, "unchanged" if unchanged else "promoted", steps, reports, headline)


def _plan(ranker: Ranker) -> Plan:
    rules = ranker.release
    return Plan(shadow=rules.shadow.requests > 0, shares=rules.canary.shares, approval=rules.approval)


def _take_over(store: ObjectStore, pointer: Pointer, version: int, steps: _Steps, by: str) -> None:
    """Withdraw another version's release that nobody works on. Should its process live after all, its next move fails."""
    other = pointer.canary
    quiet = None if other in (None, version) else abandoned(store, pointer)
    if other is None or quiet is None:
        return
    why = f"nobody has worked on its release for {quiet:.0f} s ({pointer.state.value}); version {version} is next"
    evidence = {"quiet_seconds": round(quiet), "state": pointer.state.value, "next": version}
    move_pointer(store, pointer.ranker, Withdraw(other, evidence), by=by, reason=why)
    store.delete([lease_key(pointer.ranker, other)])
    steps.add("take over", f"version {other} was withdrawn: {why}")


def _go(
    store: ObjectStore, ranker: Ranker, pointer: Pointer, version: int, steps: _Steps, *, by: str, reason: str
) -> tuple[str, str] | None:
    """From state to state until the version is stable (None), or (`rolled_back` or `held`, why).

    The pointer alone says where the release is: another process may have taken it there. What goes wrong on the way
    to the first customer takes the offer back, so that the next release is not locked out.
    """
    name = ranker.name
    while pointer.stable != version:
        if (hold := read_hold(store, name)) is not None:
            remember_waiting(store, name, version)
            steps.add("hold", hold.reason)
            return "held", f"{name} version {version} waits: releases are held: {hold.reason}"
        if pointer.state is State.READY:
            pointer = move_pointer(
                store, name, Promote(version), by=by, reason=reason or "every step was good"
            )
            steps.add("promote", f"stable is {version}, previous is {pointer.previous}")
            continue
        stage = STAGES.get(pointer.state)
        if stage is None or pointer.canary != version:
            raise _taken_back(pointer, version)
        try:
            found = stage.work(Work(store, ranker, version, pointer))
        except ReshelveError as error:
            now = settle(store, name)
            if now is not None and version not in (now.canary, now.stable):
                raise _taken_back(now, version) from error
            if (
                pointer.state is not State.CANARY
            ):  # customers have it: a hiccup of S3 is no reason to take it away
                _withdraw(store, name, version, steps, by, error.headline, {_AGAIN: True})
            raise
        if found.verdict is Verdict.ROLL_BACK:
            _withdraw(store, name, version, steps, by, found.reason, found.evidence)
            return "rolled_back", found.reason
        pointer, held = _log(store, pointer, version, stage, found, by), found.verdict is Verdict.HOLD
        if held and pointer.canary == version and pointer.held:
            steps.add("hold", found.reason)
            how = "" if pointer.state is State.APPROVAL else f"is held ({pointer.state.value}): "
            return "held", f"{name} version {version} {how}{found.reason}"
        steps.add(stage.words, found.reason)
    return None


def _taken_back(pointer: Pointer, version: int) -> DataError:
    """Never tried again: the retry would offer it once more, against the word of who took it back."""
    return DataError(
        f"{pointer.ranker}: version {version} is not being released any more",
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


def _log(
    store: ObjectStore, pointer: Pointer, version: int, stage: Stage, found: Finding, by: str
) -> Pointer:
    """Write down what a state found: on to the next one, or why it holds."""
    held = found.verdict is Verdict.HOLD
    change = Advance(
        version,
        Event.HOLD if held else stage.passes,
        pointer.state,
        pointer.step,
        found.evidence,
        found.reason[:300] if held else "",
    )
    return move_pointer(store, pointer.ranker, change, by=by, reason=found.reason[:300])


def approve(ranker: Ranker, version: int, *, by: str, reason: str = "") -> dict[str, Any]:
    """A person lets a release that waits for approval go on, and it is promoted at once.

    Raises TryAgainError where the release does not wait for a person yet, or releases are held, DataError where it was
    taken back.
    """
    require_no_hold(object_store(), ranker.name)
    move_pointer(object_store(), ranker.name, Approve(version), by=by, reason=reason or "approved")
    return release(ranker, version, by=by, reason=reason, allow_older=True, allow_held=True)


def withdraw(ranker: Ranker, *, version: int | None = None, by: str, reason: str = "") -> dict[str, Any]:
    """End the release under way, or that of `version`; what is stable serves on. Nothing under way is no error."""
    store, name = object_store(), ranker.name
    pointer = settle(store, name)
    if pointer is None or pointer.canary is None or version not in (None, pointer.canary):
        return {"ranker": name, "state": "unchanged", "withdrawn": None}
    moved = move_pointer(store, name, Withdraw(pointer.canary), by=by, reason=reason or "withdrawn")
    forget_waiting(store, name, pointer.canary)
    return {"ranker": name, "state": "withdrawn", "withdrawn": pointer.canary, "sequence": moved.sequence}


def _check(
    store: ObjectStore, pointer: Pointer, version: int, *, allow_older: bool, allow_held: bool
) -> Manifest:
    manifest = require_manifest(store, pointer.ranker, version)
    check_uploaded(store, manifest)
    if manifest.gate.verdict != "promote" and not allow_held:
        raise ConfigurationError(
            f"{pointer.ranker} version {version}: the gate said {manifest.gate.verdict}",
            "; ".join(manifest.gate.reasons) or "a person may release it all the same with --allow-held",
        )
    if (
        pointer.stable is not None
        and not allow_older
        and partition_of(version) < partition_of(pointer.stable)
    ):
        raise ConfigurationError(
            f"{pointer.ranker} version {version} is of an older partition than {pointer.stable}, which serves",
            "to go back on purpose: `reshelve rollback`, or --allow-older",
        )
    return manifest


def _withdraw(
    store: ObjectStore,
    name: str,
    version: int,
    steps: _Steps,
    by: str,
    why: str,
    evidence: dict[str, Any] | None = None,
) -> None:
    move_pointer(store, name, Withdraw(version, evidence or {}), by=by, reason=why[:300])
    steps.add("withdraw", why)


def _wait_for_label(store: ObjectStore, name: str, pointer: Pointer, version: int) -> list[Report]:
    """Wait until every live agent serves the version under the label stable. Raises DataError where one never can."""
    reports = wait_for_agents(
        store,
        name,
        pointer,
        version,
        lambda report: report.serving.stable == version,
        _LABEL_SECONDS,
        f"the pointer is moved, but serving version {version} as stable",
    )
    failures = [f"agent {r.agent}: {r.failures[version]}" for r in reports if version in r.failures]
    if failures:
        raise DataError(f"{name}: the pointer is at {version}, but it cannot be served", "; ".join(failures))
    return reports


def rollback(
    ranker: Ranker, *, to: int | None, by: str, reason: str = "", dry_run: bool = False
) -> dict[str, Any]:
    """Serve the previous version (or `to`) again. A release under way ends.

    The answer's `state`: rolled_back, unchanged, or planned (`dry_run`). Raises DataError where there is nothing to
    go back to or the version is not whole on S3, TryAgainError where the pointer is moved but agents do not follow.
    """
    store, name, started = object_store(), ranker.name, time.monotonic()
    pointer = settle(store, name)
    if pointer is None or pointer.stable is None:
        raise DataError(f"{name}: nothing was ever released", "there is no version to go back to")
    version = to if to is not None else pointer.previous
    if version is None:
        raise DataError(
            f"{name}: there is no previous version", "name one with --to; `reshelve status` lists them"
        )
    check_uploaded(store, require_manifest(store, name, version))
    Revert(version).apply(pointer)  # where it may not go, a dry run says so too
    result = {"ranker": name, "version": version, "from": pointer.stable, "canary_withdrawn": pointer.canary}
    if dry_run:
        plan = f"stable {pointer.stable} → {version}, previous {pointer.previous} → {pointer.stable}"
        return {**result, "state": "planned", "plan": plan, "sequence": pointer.sequence}
    moved = move_pointer(store, name, Revert(version), by=by, reason=reason or "rollback")
    reports = _wait_for_label(store, name, moved, version)
    state = "unchanged" if moved.sequence == pointer.sequence else "rolled_back"
    seconds = round(time.monotonic() - started, 2)
    logger(ranker=name, version=version).info(state, seconds=seconds, sequence=moved.sequence)
    return {
        **result,
        "state": state,
        "seconds": seconds,
        "sequence": moved.sequence,
        "agents": summary(reports),
    }


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
