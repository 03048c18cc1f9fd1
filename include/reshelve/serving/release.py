"""Roll a published version out, take one back, and say what serves. The log and the pointer are the only state.

Every step can be asked for again: a release killed anywhere is resumed by releasing the same version again.
"""

from __future__ import annotations

import time
from typing import Any

from reshelve.errors import ConfigurationError, DataError, TryAgainError
from reshelve.logs import logger
from reshelve.rankers import Ranker
from reshelve.serving import fleet
from reshelve.serving.catalogue import read_catalogue
from reshelve.serving.fleet import require_live, summary, wait_for_agents
from reshelve.serving.probe import probe
from reshelve.serving.reports import Report
from reshelve.serving.status import status
from reshelve.store.deployments import Offer, Pointer, Promote, Revert, Withdraw, move_pointer, settle
from reshelve.store.manifest import Manifest, partition_of
from reshelve.store.objects import ObjectStore, object_store
from reshelve.store.versions import check_uploaded, require_manifest

__all__ = ["release", "rollback", "status"]

_LABEL_SECONDS = 60.0


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
) -> dict[str, Any]:
    """Check, load beside, probe, promote, and wait until every live agent serves the version as stable.

    The answer's `state`: promoted; unchanged (it was stable already); rolled_back (it could not be loaded or failed
    its probe; the version before serves on, `headline` says why). Raises ConfigurationError or DataError where the
    version may not be released, TryAgainError where agents are away or slow, or another release is under way.
    """
    store, name = object_store(), ranker.name
    steps = _Steps(name, version)
    pointer = settle(store, name) or Pointer(ranker=name)
    manifest = _check(store, pointer, version, allow_older=allow_older, allow_held=allow_held)
    unchanged = pointer.stable == version
    steps.add(
        "check",
        f"published from partition {manifest.lineage.partition}, gate verdict {manifest.gate.verdict}",
    )
    if not unchanged:
        problem = _load_and_probe(store, ranker, version, steps, by=by, reason=reason)
        if problem is not None:
            return _result(name, version, "rolled_back", steps, require_live(store, name), problem)
        pointer = move_pointer(store, name, Promote(version), by=by, reason=reason or "its probe was good")
        steps.add("promote", f"stable is {version}, previous is {pointer.previous}")
    reports = _wait_for_label(store, name, pointer, version)
    steps.add("serve", f"{len(reports)} agents answer with {version} as stable")
    headline = f"{name} version {version} serves" + (" already" if unchanged else "")
    return _result(name, version, "unchanged" if unchanged else "promoted", steps, reports, headline)


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


def _load_and_probe(
    store: ObjectStore, ranker: Ranker, version: int, steps: _Steps, *, by: str, reason: str
) -> str | None:
    """Offer the version to the agents and ask it a question on every server; what is wrong with it, or None.

    Whatever ends this early takes the offer back, so that the next release is not locked out.
    """
    name = ranker.name
    if settle(store, name) is not None:
        require_live(store, name)
    pointer = move_pointer(store, name, Offer(version), by=by, reason=reason or "release")
    try:
        require_live(store, name, fleet.FIRST_REPORT_SECONDS)
        problem = _problem(store, ranker, pointer, version, steps)
    except (TryAgainError, DataError) as error:
        _withdraw(store, name, version, steps, by, error.headline)
        raise
    if problem is not None:
        _withdraw(store, name, version, steps, by, problem)
    return problem


def _problem(store: ObjectStore, ranker: Ranker, pointer: Pointer, version: int, steps: _Steps) -> str | None:
    reports = wait_for_agents(
        store,
        ranker.name,
        pointer,
        version,
        lambda report: report.serving.canary == version,
        ranker.release.ready_seconds,
        f"loading version {version}",
    )
    failures = [(report.agent, report.failures[version]) for report in reports if version in report.failures]
    if failures:
        return "; ".join(f"agent {agent}: {message}" for agent, message in failures)
    steps.add("load beside", f"AVAILABLE at {len(reports)} agents")
    items = read_catalogue(store, ranker.name, version)
    require_manifest(
        store, ranker.name, version
    )  # housekeeping may have been deciding while the offer was made
    answers = [
        probe(ranker, version, server, items) for server in sorted({report.server for report in reports})
    ]
    bad = [f"{answer.server}: {answer.problem}" for answer in answers if answer.problem]
    if bad:
        return f"{ranker.name} version {version} failed its probe: " + "; ".join(bad)
    steps.add("probe", ", ".join(f"{answer.server} {answer.milliseconds} ms" for answer in answers))
    return None


def _withdraw(store: ObjectStore, name: str, version: int, steps: _Steps, by: str, why: str) -> None:
    move_pointer(store, name, Withdraw(version), by=by, reason=why[:300])
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
