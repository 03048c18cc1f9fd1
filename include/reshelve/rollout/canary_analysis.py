"""Promote, hold or roll back: what a step of a release showed, in numbers with their intervals. Pure functions.

Errors: the interval of the difference of two rates (Newcombe 1998, method 10, from Wilson's). Latency: the ratio of
the 95th percentiles, each with the interval of its order statistics. A canary is looked at whenever its requests have
doubled, with intervals of 99 %: looking often would otherwise find something sooner or later. Clicks: the ratio of the
sessions that could have got either version, with an interval that holds however often it is looked at (`statistics.stratified`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from reshelve.config.rollout import CanaryClicks, Release
from reshelve.protocol.traffic import Counts, TrafficReport, merged
from reshelve.statistics.rates import newcombe
from reshelve.statistics.stratified import Stratum, mantel_haenszel


class StepOutcome(StrEnum):
    """What a step of a release answers."""

    PROMOTE = "promote"
    HOLD = "hold"
    ROLL_BACK = "roll back"


@dataclass(frozen=True)
class StepAnalysis:
    """A verdict, why, and the numbers for the deployment log."""

    verdict: StepOutcome
    reason: str
    evidence: dict[str, Any] = field(default_factory=dict)


def judge_canary(stable: Counts, canary: Counts, rules: Release) -> StepAnalysis:
    """The canary's requests beside the stable version's of the same time. The worst of both parts decides."""
    evidence: dict[str, Any] = {
        "requests": {"stable": stable.requests, "canary": canary.requests},
        "errors": {"stable": stable.errors, "canary": canary.errors},
        "rejected": {"stable": stable.misfits, "canary": canary.misfits},
    }
    least = rules.canary.min_requests
    if min(canary.judged, stable.judged) < least:
        counted = f"{canary.judged} requests of the canary, {stable.judged} of the stable version"
        return StepAnalysis(StepOutcome.HOLD, f"too few requests: {counted}; {least} are needed", evidence)
    parts = [
        _errors(stable, canary, rules, evidence),
        _rejections(stable, canary, rules, evidence),
        _latency(stable, canary, rules, evidence),
    ]
    return _worst(parts, evidence)


def with_clicks(found: StepAnalysis, clicks: StepAnalysis) -> StepAnalysis:
    """What a step showed, clicks included."""
    parts = [(found.verdict, found.reason), (clicks.verdict, clicks.reason)]
    return _worst(parts, {**found.evidence, "clicks": clicks.evidence})


def _worst(parts: Sequence[tuple[StepOutcome, str]], evidence: dict[str, Any]) -> StepAnalysis:
    order = [StepOutcome.ROLL_BACK, StepOutcome.HOLD, StepOutcome.PROMOTE]
    verdict = min((verdict for verdict, _ in parts), key=order.index)
    reasons = [reason for found, reason in parts if found is verdict]
    return StepAnalysis(verdict, "; ".join(reasons), {**evidence, "verdict": verdict.value})


def judge_clicks(strata: Sequence[Stratum], rules: CanaryClicks, *, overdue: bool = False) -> StepAnalysis:
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
        return StepAnalysis(
            StepOutcome.HOLD,
            f"clicks: too few sessions: {counted}; {rules.min_sessions} are needed",
            evidence,
        )
    found = mantel_haenszel(strata)
    if found is None:
        return StepAnalysis(StepOutcome.HOLD, f"clicks: inconclusive: nobody clicked: {counted}", evidence)
    low, drop, high = 1 - found.high, 1 - found.value, 1 - found.low
    evidence["drop"] = [None if math.isinf(low) else round(low, 5), round(high, 5)]
    between = f"at most {high:+.1%}" if math.isinf(low) else f"{low:+.1%} to {high:+.1%}"
    said = f"click-through lower by {between} of stable's ({counted}), {most:.1%} is allowed"
    if low > most:
        return StepAnalysis(StepOutcome.ROLL_BACK, said, evidence)
    if high <= most:
        return StepAnalysis(StepOutcome.PROMOTE, said, evidence)
    if overdue and drop <= most:
        return StepAnalysis(
            StepOutcome.PROMOTE,
            f"not certain after {rules.wait_hours:g} h, estimate {drop:+.1%}: {said}",
            evidence,
        )
    return StepAnalysis(StepOutcome.HOLD, f"inconclusive: {said}", evidence)


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
        if judge_canary(of_stable, of_canary, rules).verdict is not StepOutcome.ROLL_BACK:
            return report.client
    return ""


def _errors(
    stable: Counts, canary: Counts, rules: Release, evidence: dict[str, Any]
) -> tuple[StepOutcome, str]:
    _, low, high = newcombe(canary.faults, canary.judged, stable.faults, stable.judged)
    most = rules.canary.max_error_increase
    evidence["error_increase"] = [round(low, 5), round(high, 5)]
    said = f"error rate higher by {low:+.2%} to {high:+.2%}, {most:.2%} is allowed"
    if low > most:
        return StepOutcome.ROLL_BACK, said
    # Without a single error more it need not be shown that there could be none: requests would never be enough.
    if high <= most or canary.faults * max(stable.judged, 1) <= stable.faults * canary.judged:
        return StepOutcome.PROMOTE, said
    return StepOutcome.HOLD, f"inconclusive: {said}"


def _rejections(
    stable: Counts, canary: Counts, rules: Release, evidence: dict[str, Any]
) -> tuple[StepOutcome, str]:
    """Sessions are placed by chance, so callers' own errors meet both alike: what only the canary rejects is its fault."""
    _, low, high = newcombe(canary.misfits, canary.requests, stable.misfits, stable.requests)
    most = rules.canary.max_error_increase
    evidence["rejected_increase"] = [round(low, 5), round(high, 5)]
    said = f"rejects more of the requests by {low:+.2%} to {high:+.2%}, {most:.2%} is allowed"
    return (StepOutcome.ROLL_BACK if low > most else StepOutcome.PROMOTE), said


def _latency(
    stable: Counts, canary: Counts, rules: Release, evidence: dict[str, Any]
) -> tuple[StepOutcome, str]:
    mine, theirs = canary.p95, stable.p95
    if mine is None or theirs is None:
        return StepOutcome.HOLD, "inconclusive: no latencies to compare"
    low, high, most = mine.low / theirs.high, mine.high / theirs.low, rules.max_latency_ratio
    evidence["p95_ms"] = {
        name: [round(end, 2) for end in each.ends] for name, each in (("canary", mine), ("stable", theirs))
    }
    evidence["latency_ratio"] = [round(low, 3), round(high, 3)]
    said = f"p95 {low:.2f} to {high:.2f} times the stable version's, {most:g} is allowed"
    if low > most:
        return StepOutcome.ROLL_BACK, said
    return (StepOutcome.PROMOTE, said) if high <= most else (StepOutcome.HOLD, f"inconclusive: {said}")
