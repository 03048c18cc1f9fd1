"""A look in words: one readable block for the task's log, and the small object that its DAG acts on."""

from __future__ import annotations

import sys
from datetime import date
from typing import Any

from reshelve.monitoring.observations import Observation
from reshelve.notation import plain


def tell(
    observation: Observation,
    *,
    retrain: date | None = None,
    release: int | None = None,
    requested_by: str = "",
    dry_run: bool = False,
) -> dict[str, Any]:
    """Write the block to stderr, where logs go; the result of the verb.

    `requested_by`: who requested the release of the version `release`, where another person has to approve it.
    """
    decision = observation.decision
    assert decision is not None
    headline = f"{observation.ranker}: {decision.condition.value} → {decision.action.value}"
    sys.stderr.write("\n".join(block(observation)) + "\n")
    return {
        "ranker": observation.ranker,
        "headline": headline,
        "condition": decision.condition.value,
        "action": decision.action.value,
        "reason": decision.reason,
        "refused": decision.refused,
        "done": decision.done,
        "alert": decision.alert,
        "retrain": None if retrain is None else retrain.isoformat(),
        "release": release,
        "requested_by": requested_by,
        "held": observation.held,
        "findings": [f"{finding.condition.value}: {finding.reason}" for finding in observation.findings],
        "at": observation.at.isoformat(timespec="seconds"),
        "dry_run": dry_run,
    }


def block(observation: Observation) -> list[str]:
    """The look as lines for people."""
    decision = observation.decision
    since = "the first look" if observation.since is None else f"since {observation.since:%H:%M:%S}"
    lines = [f"── {observation.ranker} at {observation.at:%Y-%m-%d %H:%M:%S} UTC ({since}) ──"]
    for seen in observation.versions:
        rate = "" if seen.error_rate is None else f", {seen.errors} failed ({seen.error_rate:.2%})"
        rate += f", {seen.rejected} rejected" if seen.rejected else ""
        rate += f", {seen.refusals} refusals" if seen.refusals else ""
        times = (
            ""
            if seen.p95_ms is None
            else f", p50 {seen.p50_ms:.1f} p95 {seen.p95_ms:.1f} p99 {seen.p99_ms:.1f} ms"
        )
        clicks = (
            ""
            if seen.click_through is None
            else f", click-through {seen.click_through:.2%} of {seen.clickable}"
        )
        lines.append(f"   {seen.role.value:<8} {seen.version}: {seen.requests} requests{rate}{times}{clicks}")
    for agent in observation.agents:
        state = agent.error or ("live" if agent.live else f"silent for {agent.age_seconds:.0f} s")
        lines.append(f"   agent    {agent.agent}: serves {agent.stable}, {state}")
    if observation.measured:
        lines.append(
            "   measured "
            + ", ".join(f"{name} {plain(value)}" for name, value in sorted(observation.measured.items()))
        )
    lines += [f"   found    {finding.condition.value}: {finding.reason}" for finding in observation.findings]
    if decision is not None:
        lines.append(f"   decided  {decision.condition.value} → {decision.action.value}: {decision.reason}")
        lines += [f"   refused  {decision.refused}"] if decision.refused else []
        lines += [f"   done     {decision.done}"] if decision.done else []
    lines += [f"   held     {observation.held}"] if observation.held else []
    return lines
