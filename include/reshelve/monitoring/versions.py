"""Whether a version is bad: errors and latencies of its own requests, each with its interval.

What goes wrong soon after a version came is blamed on it, where the server itself is well; later, the service is
blamed: going back to an older version would mend nothing. The canary is compared with the stable version of the same
time, by the rules of its release.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from reshelve.monitoring.checks import judged
from reshelve.monitoring.collect import Seen
from reshelve.monitoring.memory import Known, Memory
from reshelve.monitoring.observations import Condition, Finding
from reshelve.serving.judge import Verdict, difference_of_rates, judge_canary, quantile, wilson
from reshelve.serving.traffic import Counts

_SURE_AT_ONCE = 20  # requests: fewer than min_requests are enough where nearly all fail


def check_versions(seen: Seen, memory: Memory, fresh: dict[int, Counts]) -> None:
    """Judge the canary, and the stable version as soon as its requests since the last judgement are enough."""
    pointer = seen.pointer
    for version, counts in fresh.items():
        known = memory.versions.setdefault(version, Known())
        known.window = known.window.plus(
            counts.model_copy(update={"scores": {}, "lengths": {}, "topics": {}})
        )
    if pointer.canary is not None and pointer.stable is not None and seen.step:
        _check_canary(seen, memory)
    if pointer.stable is None or pointer.stable not in memory.versions:
        return
    known = memory.versions[pointer.stable]
    errors = _errors(seen, memory, known)
    if known.window.requests < seen.ranker.watch.min_requests and errors is None:
        return
    latency = _latency(seen, memory, known)
    judged(memory, "errors", errors)
    judged(memory, "latency", latency)
    if errors is None and latency is None:
        known.good()
    known.window = Counts()


def _check_canary(seen: Seen, memory: Memory) -> None:
    pointer = seen.pointer
    assert pointer.canary is not None and pointer.stable is not None
    found = judge_canary(
        seen.step.get(pointer.stable, Counts()), seen.step.get(pointer.canary, Counts()), seen.ranker.release
    )
    bad = Finding(
        condition=Condition.BAD_CANARY,
        check="canary",
        version=pointer.canary,
        reason=f"the canary {pointer.canary}: {found.reason}",
        evidence=found.evidence,
    )
    judged(memory, "canary", bad if found.verdict is Verdict.ROLL_BACK else None)


def _blamed(seen: Seen, memory: Memory) -> bool:
    """Whether the stable version is to blame."""
    young = timedelta(hours=seen.ranker.watch.blame_hours)
    return memory.stable is not None and seen.now - memory.stable.since < young and seen.server_is_well


def _finding(seen: Seen, memory: Memory, check: str, reason: str, evidence: dict[str, Any]) -> Finding:
    stable = seen.pointer.stable
    if _blamed(seen, memory):
        return Finding(
            condition=Condition.BAD_VERSION, check=check, version=stable, reason=f"version {stable}: {reason}",
            evidence=evidence,
        )  # fmt: skip
    why = (
        f"version {stable} has been stable for longer than {seen.ranker.watch.blame_hours:g} h"
        if seen.server_is_well
        else "no agent says that its server is well"
    )
    return Finding(
        condition=Condition.BAD_SERVICE, check=check, version=stable, evidence=evidence,
        reason=f"{reason}; no version is blamed: {why}",
    )  # fmt: skip


def _before(seen: Seen, memory: Memory) -> Counts:
    """What was good before: of the version before a young one, of the old one itself."""
    previous = seen.pointer.previous
    version = previous if _blamed(seen, memory) and previous is not None else seen.pointer.stable
    known = memory.versions.get(version) if version is not None else None
    return Counts() if known is None else known.baseline


def _errors(seen: Seen, memory: Memory, known: Known) -> Finding | None:
    """Surely too many; or surely more than before, by more than a canary would be allowed."""
    rules, window, before = seen.ranker.watch, known.window, _before(seen, memory)
    if window.requests < min(_SURE_AT_ONCE, rules.min_requests):
        return None
    low, high = wilson(window.failed, window.requests)
    kinds = ", ".join(f"{number} {name}" for name, number in sorted(window.errors.items()))
    evidence = {
        "requests": window.requests,
        "errors": window.errors,
        "error_rate": [round(low, 5), round(high, 5)],
    }
    if low > rules.max_error_rate:
        said = (
            f"{low:.1%} to {high:.1%} of the requests fail ({kinds}), {rules.max_error_rate:.1%} is allowed"
        )
        return _finding(seen, memory, "errors", said, evidence)
    if before.requests < rules.min_requests or window.requests < rules.min_requests:
        return None
    more, most = difference_of_rates(window.failed, window.requests, before.failed, before.requests)
    allowed = max(seen.ranker.release.canary.max_error_increase, rules.max_error_rate / 2)
    if more > allowed:
        said = (
            f"error rate higher than before by {more:.2%} to {most:.2%} ({kinds}), {allowed:.2%} is allowed"
        )
        return _finding(
            seen, memory, "errors", said, evidence | {"error_increase": [round(more, 5), round(most, 5)]}
        )
    return None


def _latency(seen: Seen, memory: Memory, known: Known) -> Finding | None:
    """Surely slower than is allowed, or than before by more than a release may be."""
    rules, mine = seen.ranker.watch, quantile(known.window)
    if mine is None:
        return None
    low, high = mine
    evidence: dict[str, Any] = {"requests": known.window.requests, "p95_ms": [round(low, 2), round(high, 2)]}
    if rules.max_p95_ms is not None and low > rules.max_p95_ms:
        said = f"p95 {low:.0f} to {high:.0f} ms, {rules.max_p95_ms:g} ms is allowed"
        return _finding(seen, memory, "latency", said, evidence)
    before = _before(seen, memory)
    theirs = quantile(before)
    if theirs is None or before.requests < rules.min_requests:
        return None
    ratio, most = low / theirs[1], seen.ranker.release.max_latency_ratio
    if ratio > most:
        said = f"p95 {ratio:.2f} to {high / theirs[0]:.2f} times what it was, {most:g} is allowed"
        return _finding(
            seen,
            memory,
            "latency",
            said,
            evidence | {"latency_ratio": [round(ratio, 3), round(high / theirs[0], 3)]},
        )
    return None
