"""Bounds on what the watch does by itself, so that a signal that flaps never makes it flap. Pure functions."""

from __future__ import annotations

from datetime import datetime, timedelta

from reshelve.config.watch import Guard
from reshelve.monitoring.observations import Action, Finding, WatchDecision
from reshelve.monitoring.watch_state import Act, Memory, Told

_DAY = timedelta(days=1)
_GONE = timedelta(hours=1)
_BUSY = timedelta(minutes=5)  # an action that is not settled after so long was cut off: it may be done again


def guarded(decision: WatchDecision, memory: Memory, rules: Guard, now: datetime) -> WatchDecision:
    """The decision, or an alert in its place that says why it may not be done."""
    if decision.action in (Action.ALERT, Action.NOTHING):
        return decision
    refused = _refusal(decision, memory.acts, rules, now)
    if not refused:
        return decision
    return decision.model_copy(
        update={"action": Action.ALERT, "refused": f"{decision.action.value} is left to a person: {refused}"}
    )


def _refusal(decision: WatchDecision, acts: list[Act], rules: Guard, now: datetime) -> str:
    if decision.action.value not in rules.acts:
        return "the ranker file does not allow the watch to do it"
    if decision.action is Action.HOLD:
        return ""  # it stops things and moves nothing; holding what is held changes nothing
    if any(not act.settled and now - act.at < _BUSY for act in acts):
        return "another action is under way"
    moves = [act for act in acts if act.settled and act.action is not Action.HOLD]
    if decision.action in (Action.ROLL_BACK, Action.WITHDRAW) and any(
        act.cause == decision.cause for act in moves
    ):
        return f"it was already done for this cause ({decision.cause}), and the cause came back"
    recent = [act for act in moves if now - act.at < _DAY]
    if len(recent) >= rules.actions_a_day:
        return f"{len(recent)} automatic actions in 24 hours are the limit"
    cooldown = timedelta(minutes=rules.cooldown_minutes)
    if moves and now - moves[-1].at < cooldown:
        last = moves[-1]
        return f"{last.action.value} at {last.at:%H:%M} UTC must take effect first ({rules.cooldown_minutes:g} min)"
    return ""


def news(findings: list[Finding], memory: Memory, rules: Guard, now: datetime) -> list[Finding]:
    """The findings that people were not told of; remembers that they now are.

    A cause that lasts is told again after `repeat_hours`, one that was gone for an hour as soon as it is back.
    """
    repeat = timedelta(hours=rules.repeat_hours)
    found = []
    for finding in findings:
        told = memory.told.get(finding.cause)
        if told is None or now - told.seen > _GONE or now - told.at >= repeat:
            found.append(finding)
            told = Told(at=now, seen=now)
        memory.told[finding.cause] = Told(at=told.at, seen=now)
    memory.told = {cause: told for cause, told in memory.told.items() if now - told.seen < repeat}
    return found
