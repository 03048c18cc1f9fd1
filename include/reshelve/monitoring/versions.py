"""Whether a version is bad, and what is to blame for what goes wrong.

What goes wrong soon after a version came is blamed on it, where the server itself is well and not overloaded; later, the
service is blamed: going back to an older version would mend nothing. The canary is compared with the stable version of
the same time, by the rules of its release.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from reshelve.monitoring.checks import judged
from reshelve.monitoring.collect import Collected
from reshelve.monitoring.observations import Condition, Finding
from reshelve.monitoring.service import OVERLOAD
from reshelve.monitoring.trouble import CHECKS, Trouble, lone_witness
from reshelve.monitoring.watch_state import Memory, VersionRecord
from reshelve.protocol.traffic import Counts
from reshelve.rollout.canary_analysis import StepOutcome, judge_canary, lone_client

ByClient = Mapping[str, Mapping[int, Counts]]


def check_versions(
    seen: Collected, memory: Memory, fresh: Mapping[int, Counts], by_client: ByClient | None = None
) -> None:
    """Judge the canary, and the stable version as soon as its requests since the last judgement are enough.

    `by_client`: what `fresh` is made of; without it, one client counted all.
    """
    pointer = seen.pointer
    for version, counts in fresh.items():
        callers = {name: of[version] for name, of in (by_client or {}).items() if version in of}
        memory.versions.setdefault(version, VersionRecord()).count(counts, callers)
    if pointer.canary is not None and pointer.stable is not None and seen.step:
        _check_canary(seen, memory)
    if pointer.stable is None or pointer.stable not in memory.versions:
        return
    known = memory.versions[pointer.stable]
    found = {check: _found(check, seen, memory, known) for check in CHECKS}
    if known.window.judged < seen.ranker.watch.min_requests and found["errors"] is None:
        return
    for check, finding in found.items():
        judged(memory, check, finding)
    if not any(found.values()):
        known.good()
    known.begin_anew()


def _found(check: str, seen: Collected, memory: Memory, known: VersionRecord) -> Finding | None:
    before = _before(seen, memory)
    trouble = CHECKS[check][0](known.window, before, seen.ranker)
    if trouble is None or (check == "rejections" and not _is_young(seen, memory)):
        return None  # what callers reject of an old version is their own
    lone = lone_witness(check, trouble, known.callers, before, seen.ranker)
    return _finding(seen, memory, check, trouble, lone)


def _check_canary(seen: Collected, memory: Memory) -> None:
    pointer = seen.pointer
    assert pointer.canary is not None and pointer.stable is not None
    found = judge_canary(
        seen.step.get(pointer.stable, Counts()), seen.step.get(pointer.canary, Counts()), seen.ranker.release
    )
    if found.verdict is not StepOutcome.ROLL_BACK:
        judged(memory, "canary", None)
        return
    lone = lone_client(seen.reports, seen.step_began, pointer.stable, pointer.canary, seen.ranker.release)
    alone = f"; no version is blamed: only the client {lone} says so" if lone else ""
    bad = Finding(
        condition=Condition.BAD_SERVICE if lone else Condition.BAD_CANARY,
        check="canary",
        version=pointer.canary,
        reason=f"the canary {pointer.canary}: {found.reason}{alone}",
        evidence=found.evidence,
    )
    judged(memory, "canary", bad)


def _is_young(seen: Collected, memory: Memory) -> bool:
    young = timedelta(hours=seen.ranker.watch.blame_hours)
    return memory.stable is not None and seen.now - memory.stable.since < young


def _blamed(seen: Collected, memory: Memory) -> bool:
    """Whether the stable version is to blame."""
    return _is_young(seen, memory) and seen.server_is_well and OVERLOAD not in memory.standing


def _finding(seen: Collected, memory: Memory, check: str, trouble: Trouble, lone: str) -> Finding:
    stable = seen.pointer.stable
    given: dict[str, Any] = {"check": check, "version": stable, "evidence": trouble.evidence}
    if _blamed(seen, memory) and not lone:
        return Finding(condition=Condition.BAD_VERSION, reason=f"version {stable}: {trouble.said}", **given)
    if lone:
        why = f"only the client {lone} says so"
    elif not seen.server_is_well:
        why = "no agent reports a healthy server"
    elif OVERLOAD in memory.standing:
        why = "the servers are overloaded"
    else:
        why = f"version {stable} has been stable for longer than {seen.ranker.watch.blame_hours:g} h"
    reason = f"{trouble.said}; no version is blamed: {why}"
    return Finding(condition=Condition.BAD_SERVICE, reason=reason, **given)


def _before(seen: Collected, memory: Memory) -> Counts:
    """What was good before: of the version before a young one, of the old one itself."""
    previous = seen.pointer.previous
    version = previous if _blamed(seen, memory) and previous is not None else seen.pointer.stable
    known = memory.versions.get(version) if version is not None else None
    return Counts() if known is None else known.baseline
