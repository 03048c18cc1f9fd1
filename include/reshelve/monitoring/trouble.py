"""What is wrong with the requests of one version, with its interval: errors, latencies, rejections. Pure functions.

A report is what a client says. Where several clients report, what is found has to be found without any one of them too:
whoever can write one report decides nothing alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from reshelve.config.ranker import Ranker
from reshelve.protocol.traffic import Counts
from reshelve.statistics.rates import newcombe, wilson

_SURE_AT_ONCE = 20  # requests: fewer than min_requests are enough where nearly all fail
_FEWEST = 5  # requests: fewer do not speak against anything


@dataclass(frozen=True)
class Trouble:
    """`least`: what the rate (a share) or the 95th percentile (ms) surely is at least."""

    said: str
    least: float
    evidence: dict[str, Any] = field(default_factory=dict)


def errors(window: Counts, before: Counts, ranker: Ranker) -> Trouble | None:
    """Surely too many; or surely more than before, by more than a canary would be allowed."""
    rules = ranker.watch
    if window.judged < min(_SURE_AT_ONCE, rules.min_requests):
        return None
    _, low, high = wilson(window.faults, window.judged)
    kinds = _kinds(window.errors)
    evidence: dict[str, Any] = {
        "requests": window.judged,
        "errors": window.errors,
        "error_rate": [round(low, 5), round(high, 5)],
    }
    if low > rules.max_error_rate:
        said = (
            f"{low:.1%} to {high:.1%} of the requests fail ({kinds}), {rules.max_error_rate:.1%} is allowed"
        )
        return Trouble(said, low, evidence)
    if min(before.judged, window.judged) < rules.min_requests:
        return None
    _, more, most = newcombe(window.faults, window.judged, before.faults, before.judged)
    allowed = _increase(ranker)
    if more > allowed:
        said = (
            f"error rate higher than before by {more:.2%} to {most:.2%} ({kinds}), {allowed:.2%} is allowed"
        )
        return Trouble(said, low, evidence | {"error_increase": [round(more, 5), round(most, 5)]})
    return None


def latency(window: Counts, before: Counts, ranker: Ranker) -> Trouble | None:
    """Surely slower than is allowed, or than before by more than a release may be."""
    rules, mine = ranker.watch, window.p95
    if mine is None or window.judged < rules.min_requests:
        return None
    low, high = mine.ends
    evidence: dict[str, Any] = {"requests": window.judged, "p95_ms": [round(low, 2), round(high, 2)]}
    if rules.max_p95_ms is not None and low > rules.max_p95_ms:
        return Trouble(f"p95 {low:.0f} to {high:.0f} ms, {rules.max_p95_ms:g} ms is allowed", low, evidence)
    theirs = before.p95
    if theirs is None or before.judged < rules.min_requests:
        return None
    ratio, most, allowed = low / theirs.high, high / theirs.low, ranker.release.max_latency_ratio
    if ratio > allowed:
        said = f"p95 {ratio:.2f} to {most:.2f} times what it was, {allowed:g} is allowed"
        return Trouble(said, low, evidence | {"latency_ratio": [round(ratio, 3), round(most, 3)]})
    return None


def rejections(window: Counts, before: Counts, ranker: Ranker) -> Trouble | None:
    """Surely more than before: then a version may reject what it should answer. Callers' errors alone have no limit."""
    least = ranker.watch.min_requests
    if min(window.requests, before.requests) < least:
        return None
    _, more, most = newcombe(window.misfits, window.requests, before.misfits, before.requests)
    allowed = _increase(ranker)
    if more <= allowed:
        return None
    _, low, high = wilson(window.misfits, window.requests)
    said = (
        f"rejects {more:.2%} to {most:.2%} more of the requests than before ({_kinds(window.rejected)}),"
        f" {allowed:.2%} is allowed"
    )
    evidence = {"requests": window.requests, "rejected": window.rejected, "rejected_rate": [round(low, 5), round(high, 5)]}  # fmt: skip
    return Trouble(said, low, evidence)


def _rate_at_most(hits: int, count: int) -> float:
    return wilson(hits, count).high


def _slowest(counts: Counts) -> float:
    return float("inf") if counts.p95 is None else counts.p95.high


Judge = Callable[[Counts, Counts, Ranker], Trouble | None]
CHECKS: Mapping[str, tuple[Judge, Callable[[Counts], float]]] = {
    "errors": (errors, lambda counts: _rate_at_most(counts.faults, counts.judged)),
    "latency": (latency, _slowest),
    "rejections": (rejections, lambda counts: _rate_at_most(counts.misfits, counts.requests)),
}
"""Check → its judge, and what counts at most show of it: below a trouble's `least` they contradict it."""


def lone_witness(
    check: str, trouble: Trouble, callers: Mapping[str, Counts], before: Counts, ranker: Ranker
) -> str:
    """The client without whose report nothing would be found; empty where the others say the same.

    What the others counted has to be bad by itself where it is enough to be judged, and must not contradict where it is not.
    """
    judge, at_most = CHECKS[check]
    for name in callers:
        rest = Counts()
        for other, counts in callers.items():
            rest = rest if other == name else rest.plus(counts)
        if rest.judged >= ranker.watch.min_requests:
            confirmed = judge(rest, before, ranker) is not None
        else:
            confirmed = rest.judged < _FEWEST or at_most(rest) >= trouble.least
        if not confirmed:
            return name
    return ""


def _kinds(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(counted.items()))


def _increase(ranker: Ranker) -> float:
    return max(ranker.release.canary.max_error_increase, ranker.watch.max_error_rate / 2)
