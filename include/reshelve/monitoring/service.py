"""What is not a version's fault: agents, overload, traffic, the newest data, nights that are late, hours out of the ordinary."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, timedelta

from reshelve.monitoring.checks import confirmed, judged
from reshelve.monitoring.collect import Collected
from reshelve.monitoring.observations import Condition, Finding
from reshelve.monitoring.season import least_requests, oddness
from reshelve.monitoring.watch_state import Hour, Memory
from reshelve.notation import plain
from reshelve.protocol.traffic import Counts
from reshelve.statistics.rates import wilson
from reshelve.validation.verdicts import PartitionDecision as DataVerdict

_FULL = 0.95  # of a machine's memory or disk
_GROWN = timedelta(minutes=5)  # how long agents may take to follow a move of the pointer
_STEADY_LOOKS = 3  # in a row with many requests, before silence is an incident
_LONGEST_GAP = timedelta(hours=1)  # between looks that are compared with each other
OVERLOAD = "overload"


def check_agents(seen: Collected, memory: Memory) -> None:
    """An agent that is silent, does not follow the pointer, or whose machine is full."""
    for key in [key for key in memory.standing if key.startswith("agent ")]:
        del memory.standing[key]
    pointer = seen.pointer
    settled = pointer.moved_at is not None and seen.now - pointer.moved_at > _GROWN
    for agent in seen.agents:
        said = ""
        if not agent.live:
            said = f"agent {agent.agent} has been silent for {agent.age_seconds:.0f} s"
        elif agent.error is not None:
            said = f"agent {agent.agent}: {agent.error}"
        elif settled and agent.stable != pointer.stable:
            said = f"agent {agent.agent} serves {agent.stable} as stable, not {pointer.stable}"
        if said:
            evidence = {"cause": agent.agent, "age_seconds": agent.age_seconds}
            memory.standing[f"agent {agent.agent}"] = Finding(
                condition=Condition.DEAD_AGENT, check="agents", reason=said, evidence=evidence
            )
        for what, share in (("memory", agent.memory_share), ("disk", agent.disk_share)):
            if agent.live and share is not None and share > _FULL:
                memory.standing[f"agent {agent.agent} {what}"] = Finding(
                    condition=Condition.BAD_SERVICE,
                    check=what,
                    reason=f"agent {agent.agent}: {share:.0%} of the {what} is in use",
                    evidence={"cause": agent.agent, "share": share},
                )
    if not seen.agents and pointer.stable is not None:
        memory.standing["agent "] = Finding(
            condition=Condition.DEAD_AGENT, check="agents", reason="no serving agent has reported for a day"
        )


def check_log(seen: Collected, memory: Memory) -> None:
    """The deployment log or the pointer object is not what its movers wrote, or agents tell of moves that it does not have."""
    said = [seen.log_problem] if seen.log_problem else []
    said += [
        f"agent {agent.agent} reports move {agent.sequence}, the log ends at {seen.moves}: an older"
        " log was put back, or the report is forged"
        for agent in seen.agents
        if agent.live and agent.sequence > seen.moves
    ]
    finding = None
    if said:
        finding = Finding(
            condition=Condition.TAMPERED, check="log", reason="; ".join(said), evidence={"cause": said[0]}
        )
    judged(memory, "log", finding)


def check_overload(seen: Collected, memory: Memory, fresh: Mapping[int, Counts]) -> None:
    """Model servers that refuse tries because no thread is free. With few tries what was found stands."""
    refusals = sum(counts.refusals for counts in fresh.values())
    tries = refusals + sum(counts.requests for counts in fresh.values())
    rules = seen.ranker.watch
    if tries < rules.min_requests:
        return
    _, low, high = wilson(refusals, tries)
    finding = None
    if low > rules.max_refusal_rate:
        finding = Finding(
            condition=Condition.BAD_SERVICE,
            check=OVERLOAD,
            reason=f"model servers refuse {low:.1%} to {high:.1%} of the attempts because all threads are busy,"
            f" {rules.max_refusal_rate:.1%} is allowed",
            evidence={"tries": tries, "refusals": refusals, "refusal_rate": [round(low, 5), round(high, 5)]},
        )
    judged(memory, OVERLOAD, finding)


def check_data(seen: Collected, memory: Memory) -> None:
    """The newest partition that was validated was stopped."""
    verdict = seen.verdict
    finding = None
    if verdict is not None and verdict.verdict is DataVerdict.STOP:
        finding = Finding(
            condition=Condition.BROKEN_DATA,
            check="data",
            reason=f"{verdict.source} {verdict.partition} was stopped by validation: {verdict.headline}",
            evidence={
                "cause": f"{verdict.source} {verdict.partition}",
                "rules": [rule.rule for rule in verdict.rules],
            },
        )
    judged(memory, "data", finding)


def check_lateness(seen: Collected, memory: Memory) -> None:
    """Yesterday's partition has no verdict, or its night no end, by the hours of the ranker file."""
    now = seen.now.astimezone(UTC)
    day = (now - timedelta(days=1)).date()
    rules, source = seen.ranker.watch, seen.ranker.data.source
    due = rules.partition_by is not None and now.hour >= rules.partition_by
    late = None
    if due and seen.yesterday is None:
        late = Finding(
            condition=Condition.LATE, check="partition", evidence={"cause": day.isoformat()},
            reason=f"{source} {day} has no verdict at {now:%H:%M} UTC; it was due by {rules.partition_by}:00",
        )  # fmt: skip
    judged(memory, "partition", late)
    due = rules.night_by is not None and now.hour >= rules.night_by
    nothing_to_do = seen.yesterday is not None and not seen.yesterday.usable
    late = None
    if due and not seen.night_done and not nothing_to_do:
        late = Finding(
            condition=Condition.LATE, check="night", evidence={"cause": day.isoformat()},
            reason=f"the night of {day} is not done at {now:%H:%M} UTC; it was due by {rules.night_by}:00",
        )  # fmt: skip
    judged(memory, "night", late)


def check_traffic(seen: Collected, memory: Memory, fresh: dict[int, Counts]) -> None:
    """Not one request, though many were to be expected: each of the looks before had many, or the least of the same hour of
    earlier weeks was many. Customers come in bursts: one look alone says little."""
    requests = sum(counts.requests for counts in fresh.values())
    gap = seen.now - memory.at if memory.at is not None else None
    if requests or gap is None:
        judged(memory, "traffic", None)
    elif memory.suspects.get("traffic", 0) < 2 and gap <= _LONGEST_GAP:
        steady = memory.last_requests[-_STEADY_LOOKS:]
        expected = float(min(steady)) if len(steady) == _STEADY_LOOKS else 0.0
        silent = seen.now - (memory.asked_at or seen.now)
        of_the_hour = least_requests(memory.hours, Hour(at=seen.now), seen.ranker.watch.season.least)
        expected = max(expected, of_the_hour * min(silent / timedelta(hours=1), 1.0))
        if expected >= seen.ranker.watch.silent_requests:
            said = f"not one request in {gap.total_seconds() / 60:.0f} minutes; at least {expected:.0f} were expected"
            finding = Finding(condition=Condition.NO_TRAFFIC, check="traffic", reason=said)
            confirmed(memory, "traffic", finding)
    if requests:
        memory.asked_at = seen.now
    if gap is not None and "traffic" not in memory.standing:
        memory.last_requests = [*memory.last_requests, requests][-_STEADY_LOOKS:]


def check_season(seen: Collected, memory: Memory, fresh: dict[int, Counts]) -> dict[str, float]:
    """Whether the hour that is over was out of the ordinary; deviations by metric, where there was enough to compare."""
    rules = seen.ranker.watch.season
    measured = {}
    for hour in memory.add_hour(seen.now, fresh.values(), rules.days):
        for found in oddness(memory.hours, hour, rules):
            name = found.metric.replace(" ", "_")
            measured[f"deviation_of_{name}"] = round(found.deviations, 2)
            finding = None
            if abs(found.deviations) > rules.deviations and (
                found.metric == "requests" or found.deviations > 0
            ):
                said = (
                    f"{found.metric} {plain(found.value, 4)} from {hour.at:%H:%M} to {hour.at + timedelta(hours=1):%H:%M} UTC,"
                    f" {plain(found.expected, 4)} is usual ({found.deviations:+.1f} robust deviations)"
                )
                finding = Finding(
                    condition=Condition.ODD, check=found.metric, reason=said,
                    evidence={"value": found.value, "expected": found.expected, "deviations": round(found.deviations, 2)},
                )  # fmt: skip
            confirmed(memory, f"season: {found.metric}", finding, rules.hours)
    return measured
