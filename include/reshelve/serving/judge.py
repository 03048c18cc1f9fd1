"""Promote, hold or roll back: what a step of a release showed, in numbers with their intervals. Pure functions.

Errors: the interval of the difference of two rates (Newcombe 1998, method 10, from Wilson's). Latency: the ratio of
the 95th percentiles, each with the interval of its order statistics. A canary is looked at whenever its requests have
doubled, with intervals of 99 %: looking often would otherwise find something sooner or later. Clicks: the ratio of the
sessions that could have got either version, with an interval that holds however often it is looked at (`evaluation.stratified`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from reshelve.evaluation.stratified import Stratum, ratio
from reshelve.serving.form import CanaryClicks, Release
from reshelve.serving.traffic import Counts, TrafficReport, merged

_Z = 2.576
_QUANTILE = 0.95


class Verdict(StrEnum):
    """What a step of a release answers."""

    PROMOTE = "promote"
    HOLD = "hold"
    ROLL_BACK = "roll back"


@dataclass(frozen=True)
class Finding:
    """A verdict, why, and the numbers for the deployment log."""

    verdict: Verdict
    reason: str
    evidence: dict[str, Any] = field(default_factory=dict)


def judge_canary(stable: Counts, canary: Counts, rules: Release) -> Finding:
    """The canary's requests beside the stable version's of the same time. The worst of both parts decides."""
    evidence: dict[str, Any] = {
        "requests": {"stable": stable.requests, "canary": canary.requests},
        "errors": {"stable": stable.errors, "canary": canary.errors},
        "rejected": {"stable": stable.misfits, "canary": canary.misfits},
    }
    least = rules.canary.min_requests
    if min(canary.judged, stable.judged) < least:
        counted = f"{canary.judged} requests of the canary, {stable.judged} of the stable version"
        return Finding(Verdict.HOLD, f"too few requests: {counted}; {least} are needed", evidence)
    parts = [
        _errors(stable, canary, rules, evidence),
        _rejections(stable, canary, rules, evidence),
        _latency(stable, canary, rules, evidence),
    ]
    return _worst(parts, evidence)


def with_clicks(found: Finding, clicks: Finding) -> Finding:
    """What a step showed, clicks included."""
    parts = [(found.verdict, found.reason), (clicks.verdict, clicks.reason)]
    return _worst(parts, {**found.evidence, "clicks": clicks.evidence})


def _worst(parts: Sequence[tuple[Verdict, str]], evidence: dict[str, Any]) -> Finding:
    order = [Verdict.ROLL_BACK, Verdict.HOLD, Verdict.PROMOTE]
    verdict = min((verdict for verdict, _ in parts), key=order.index)
    reasons = [reason for found, reason in parts if found is verdict]
    return Finding(verdict, "; ".join(reasons), {**evidence, "verdict": verdict.value})


def judge_clicks(strata: Sequence[Stratum], rules: CanaryClicks, *, overdue: bool = False) -> Finding:
    """The canary's sessions beside those of stable that could have got it. `overdue`: an estimate is enough to go on.

    Holding is the answer to what is not known: a canary that surely loses clicks is rolled back, one that may is not promoted.
    """
    most = rules.max_drop or 0.0
    canary, stable = (
        sum(arm.sessions for arm in arms) for arms in ([s.mine for s in strata], [s.theirs for s in strata])
    )
    evidence: dict[str, Any] = {"sessions": {"stable": stable, "canary": canary}}
    counted = f"{canary} sessions of the canary, {stable} of stable"
    if min(canary, stable) < rules.min_sessions:
        return Finding(
            Verdict.HOLD, f"clicks: too few sessions: {counted}; {rules.min_sessions} are needed", evidence
        )
    found = ratio(strata)
    if found.value is None:
        return Finding(Verdict.HOLD, f"clicks: inconclusive: nobody clicked: {counted}", evidence)
    low, drop, high = (1 - one for one in (found.high, found.value, found.low))
    evidence["drop"] = [None if math.isinf(low) else round(low, 5), round(high, 5)]
    between = f"at most {high:+.1%}" if math.isinf(low) else f"{low:+.1%} to {high:+.1%}"
    said = f"click-through lower by {between} of stable's ({counted}), {most:.1%} is allowed"
    if low > most:
        return Finding(Verdict.ROLL_BACK, said, evidence)
    if high <= most:
        return Finding(Verdict.PROMOTE, said, evidence)
    if overdue and drop <= most:
        return Finding(
            Verdict.PROMOTE,
            f"not certain after {rules.wait_hours:g} h, estimate {drop:+.1%}: {said}",
            evidence,
        )
    return Finding(Verdict.HOLD, f"inconclusive: {said}", evidence)


def lone_client(
    reports: Sequence[TrafficReport], since: int, stable: int, canary: int, rules: Release
) -> str:
    """The client without whose report a canary would not be rolled back; empty where the others say the same.

    The others have to be enough to be judged: with fewer requests they cannot say otherwise.
    """
    for report in reports:
        counts = merged((other for other in reports if other is not report), since)
        of_stable, of_canary = counts.get(stable, Counts()), counts.get(canary, Counts())
        if min(of_stable.judged, of_canary.judged) < rules.canary.min_requests:
            continue
        if judge_canary(of_stable, of_canary, rules).verdict is not Verdict.ROLL_BACK:
            return report.client
    return ""


def _errors(stable: Counts, canary: Counts, rules: Release, evidence: dict[str, Any]) -> tuple[Verdict, str]:
    low, high = difference_of_rates(canary.faults, canary.judged, stable.faults, stable.judged)
    most = rules.canary.max_error_increase
    evidence["error_increase"] = [round(low, 5), round(high, 5)]
    said = f"error rate higher by {low:+.2%} to {high:+.2%}, {most:.2%} is allowed"
    if low > most:
        return Verdict.ROLL_BACK, said
    # Without a single error more it need not be shown that there could be none: requests would never be enough.
    if high <= most or canary.faults * max(stable.judged, 1) <= stable.faults * canary.judged:
        return Verdict.PROMOTE, said
    return Verdict.HOLD, f"inconclusive: {said}"


def _rejections(
    stable: Counts, canary: Counts, rules: Release, evidence: dict[str, Any]
) -> tuple[Verdict, str]:
    """Sessions are placed by chance, so callers' own errors meet both alike: what only the canary rejects is its fault."""
    low, high = difference_of_rates(canary.misfits, canary.requests, stable.misfits, stable.requests)
    most = rules.canary.max_error_increase
    evidence["rejected_increase"] = [round(low, 5), round(high, 5)]
    said = f"rejects more of the requests by {low:+.2%} to {high:+.2%}, {most:.2%} is allowed"
    return (Verdict.ROLL_BACK if low > most else Verdict.PROMOTE), said


def _latency(stable: Counts, canary: Counts, rules: Release, evidence: dict[str, Any]) -> tuple[Verdict, str]:
    mine, theirs = quantile(canary), quantile(stable)
    if mine is None or theirs is None:
        return Verdict.HOLD, "inconclusive: no latencies to compare"
    low, high, most = mine[0] / theirs[1], mine[1] / theirs[0], rules.max_latency_ratio
    evidence["p95_ms"] = {"canary": [round(x, 2) for x in mine], "stable": [round(x, 2) for x in theirs]}
    evidence["latency_ratio"] = [round(low, 3), round(high, 3)]
    said = f"p95 {low:.2f} to {high:.2f} times the stable version's, {most:g} is allowed"
    if low > most:
        return Verdict.ROLL_BACK, said
    return (Verdict.PROMOTE, said) if high <= most else (Verdict.HOLD, f"inconclusive: {said}")


def wilson(hits: int, count: int, z: float = _Z) -> tuple[float, float]:
    """Wilson's interval of a rate."""
    if count == 0:
        return 0.0, 1.0
    rate, square = hits / count, z * z
    middle = (rate + square / (2 * count)) / (1 + square / count)
    half = z / (1 + square / count) * math.sqrt(rate * (1 - rate) / count + square / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def difference_of_rates(
    hits: int, count: int, other_hits: int, other_count: int, z: float = _Z
) -> tuple[float, float]:
    """Newcombe's interval of the first rate minus the second."""
    if not count or not other_count:
        return -1.0, 1.0
    a, b = hits / count, other_hits / other_count
    a_low, a_high = wilson(hits, count, z)
    b_low, b_high = wilson(other_hits, other_count, z)
    low = a - b - math.sqrt((a - a_low) ** 2 + (b_high - b) ** 2)
    high = a - b + math.sqrt((a_high - a) ** 2 + (b - b_low) ** 2)
    return low, high


def quantile(counts: Counts, share: float = _QUANTILE) -> tuple[float, float] | None:
    """The interval of a latency quantile (ms), from the binomial spread of its rank; None without latencies."""
    answered = sum(counts.latency.values())
    if not answered:
        return None
    half = _Z * math.sqrt(answered * share * (1 - share))
    middle = answered * share
    return counts.at_rank(max(1.0, middle - half)), counts.at_rank(min(float(answered), middle + half))
