"""Agents, traffic, data, lateness and hours out of the ordinary; drift of what is asked."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

import pytest

from reshelve.config.watch import Season
from reshelve.monitoring.collect import Collected
from reshelve.monitoring.drift import check_drift
from reshelve.monitoring.observations import AgentSeen, Condition
from reshelve.monitoring.season import oddness
from reshelve.monitoring.service import check_agents, check_data, check_lateness, check_season, check_traffic
from reshelve.monitoring.watch_state import Hour, Memory
from reshelve.protocol.traffic import Counts
from reshelve.validation.verdicts import PartitionDecision, PartitionVerdict

NOON = datetime(2011, 8, 30, 12, tzinfo=UTC)
OLD, NEW = 20110828001, 20110829001  # as in conftest
DAY = date(2011, 8, 29)


def verdict(decision: PartitionDecision) -> PartitionVerdict:
    return PartitionVerdict(
        verdict=decision, headline="half the rows are gone", source="retail", partition=DAY
    )


@pytest.mark.parametrize(
    ("agent", "words"),
    [
        pytest.param(AgentSeen(agent="a", live=True, age_seconds=3, stable=NEW), "", id="well"),
        pytest.param(
            AgentSeen(agent="a", live=False, age_seconds=300, stable=NEW), "silent for 300 s", id="silent"
        ),
        pytest.param(
            AgentSeen(agent="a", live=True, age_seconds=3, stable=NEW, error="S3 is away"),
            "S3 is away",
            id="in trouble",
        ),
        pytest.param(
            AgentSeen(agent="a", live=True, age_seconds=3, stable=OLD), "not 20110829001", id="left behind"
        ),
        pytest.param(
            AgentSeen(agent="a", live=True, age_seconds=3, stable=NEW, disk_share=0.99),
            "99% of the disk",
            id="full",
        ),
    ],
)
def test_agents(see: Callable[..., Collected], memory: Memory, agent: AgentSeen, words: str) -> None:
    check_agents(see(agents=(agent,)), memory)
    assert " ".join(finding.reason for finding in memory.standing.values()).find(words) >= 0
    assert bool(memory.standing) == bool(words)
    check_agents(see(), memory)
    assert not memory.standing, "it is well again"


def test_no_agent_at_all(see: Callable[..., Collected], memory: Memory) -> None:
    check_agents(see(agents=()), memory)
    assert [one.condition for one in memory.standing.values()] == [Condition.DEAD_AGENT]


def test_only_a_stop_is_broken_data(see: Callable[..., Collected], memory: Memory) -> None:
    for decision in (
        PartitionDecision.PASS,
        PartitionDecision.WARN,
        PartitionDecision.STOP,
        PartitionDecision.PASS,
    ):
        check_data(see(verdict=verdict(decision)), memory)
        assert ("data" in memory.standing) is (decision is PartitionDecision.STOP)
    check_data(see(), memory)
    assert not memory.standing, "nothing was ever validated"


@pytest.mark.parametrize(
    ("hour", "values", "late"),
    [
        pytest.param(3, {}, set(), id="before the hours"),
        pytest.param(5, {}, {"partition"}, id="the partition is due"),
        pytest.param(9, {}, {"partition", "night"}, id="the night is due too"),
        pytest.param(
            9,
            {"yesterday": verdict(PartitionDecision.PASS)},
            {"night"},
            id="the partition came, the night did not",
        ),
        pytest.param(
            9, {"yesterday": verdict(PartitionDecision.PASS), "night_done": True}, set(), id="all is done"
        ),
        pytest.param(
            9, {"yesterday": verdict(PartitionDecision.STOP)}, set(), id="a stopped partition has no night"
        ),
        pytest.param(
            9, {"yesterday": verdict(PartitionDecision.MISSING)}, set(), id="nor has one that never landed"
        ),
    ],
)
def test_lateness(
    see: Callable[..., Collected], memory: Memory, hour: int, values: dict[str, object], late: set[str]
) -> None:
    rules = {"watch.partition_by": 4, "watch.night_by": 8}
    check_lateness(see((hour - 12) * 60, rules, **values), memory)
    assert set(memory.standing) == late
    check_lateness(see((hour - 12) * 60, **values), memory)
    assert not memory.standing, "without an hour nothing is late"


def test_silence_after_traffic_is_no_traffic(see: Callable[..., Collected], memory: Memory) -> None:
    for minutes in (-20, -10, 0):
        check_traffic(see(minutes), memory, {NEW: Counts(requests=80)})
        memory.at = NOON + timedelta(minutes=minutes)
    found = []
    for minutes in (10, 20, 30):
        check_traffic(see(minutes), memory, {})
        found.append(memory.standing["traffic"].condition)
        memory.at = NOON + timedelta(minutes=minutes)
    assert found == [Condition.INCONCLUSIVE, Condition.NO_TRAFFIC, Condition.NO_TRAFFIC]
    assert "traffic" in memory.standing, "it lasts"
    check_traffic(see(40), memory, {NEW: Counts(requests=1)})
    assert not memory.standing


def test_a_night_without_customers_is_no_incident(see: Callable[..., Collected], memory: Memory) -> None:
    for number, requests in enumerate((80, 50, 30, 0, 0, 400, 0, 90, 60, 0)):
        memory.at = NOON + timedelta(minutes=10 * number)
        check_traffic(see(10 * (number + 1)), memory, {NEW: Counts(requests=requests)} if requests else {})
        assert not memory.standing


def test_silence_at_a_time_that_never_was_silent(see: Callable[..., Collected], memory: Memory) -> None:
    memory.hours = [Hour(at=NOON - timedelta(weeks=weeks), requests=900) for weeks in range(4, 0, -1)]
    memory.last_requests, memory.asked_at = [3, 90, 3], NOON - timedelta(minutes=10)
    check_traffic(see(1), memory, {})
    assert "at least 165 were expected" in memory.standing["traffic"].reason


def hours_of(weeks: int, seed: int = 1) -> list[Hour]:
    """A shop's weeks: busy at noon, quiet at night and on Sundays, each week a little different."""
    dice, found = random.Random(seed), []
    start = datetime(2011, 6, 6, tzinfo=UTC)
    for number in range(weeks * 168):
        at = start + timedelta(hours=number)
        mean = 20 + 400 * max(0, 6 - abs(at.hour - 13)) * (0.3 if at.weekday() == 6 else 1)
        found.append(Hour(at=at, requests=max(0, round(dice.gauss(mean, mean**0.5 + 0.08 * mean)))))
    return found


def test_a_quiet_month_has_nothing_out_of_the_ordinary() -> None:
    hours = hours_of(10)
    odd = [one for number in range(168 * 7, 168 * 10) for one in oddness(hours[number - 43 * 24 : number], hours[number], Season())
           if abs(one.deviations) > Season().deviations]  # fmt: skip
    assert odd == []


@pytest.mark.parametrize("factor", [0.0, 0.1, 4.0])
def test_two_odd_hours_are_told(see: Callable[..., Collected], memory: Memory, factor: float) -> None:
    hours = hours_of(5)
    memory.hours = hours[:-12]  # until Sunday noon
    start = hours[-12].at
    conditions = []
    for number in range(4):
        requests = round(hours[number - 12].requests * factor)
        seen = see((start + timedelta(hours=number, minutes=30) - NOON) / timedelta(minutes=1))
        check_season(seen, memory, {NEW: Counts(requests=requests)})
        conditions += [one.condition for one in memory.standing.values()]
        memory.at = seen.now
    assert conditions == [Condition.INCONCLUSIVE, Condition.ODD, Condition.ODD]


def test_an_hour_is_compared_with_nothing_while_there_is_too_little() -> None:
    hours = [Hour(at=NOON - timedelta(weeks=weeks), requests=100) for weeks in range(3, 0, -1)]
    assert oddness(hours, Hour(at=NOON, requests=0), Season()) == []


def asked(words: list[str], scores: float, seed: int, count: int = 1200) -> Counts:
    dice, made = random.Random(seed), Counts()
    for _ in range(count):
        made.add(5)
        made.describe(dice.choice(words), dice.gauss(scores, 0.1))
    return made


QUERIES = [
    f"{colour} {thing}" for colour in ("red", "blue", "green") for thing in ("mug", "lantern", "paper plate")
]


def test_what_customers_ask_may_vary_and_not_shift(see: Callable[..., Collected], memory: Memory) -> None:
    for look in range(6):
        check_drift(see(10 * look), memory, {NEW: asked(QUERIES, 0.5, look)})
        assert not memory.standing
    other = [f"a {query} for a large garden party" for query in QUERIES]
    measured = check_drift(see(70), memory, {NEW: asked(other, 0.5, 7)})
    assert {one.condition for one in memory.standing.values()} == {Condition.INCONCLUSIVE}
    assert measured["shift_of_lengths"] > 1
    check_drift(see(80), memory, {NEW: asked(other, 0.5, 8)})
    assert {one.condition for one in memory.standing.values()} == {Condition.DRIFT}
    check_drift(see(90), memory, {NEW: asked(QUERIES, 0.5, 9)})
    assert not memory.standing, "it is as it was"


def test_scores_are_compared_with_the_versions_own(see: Callable[..., Collected], memory: Memory) -> None:
    for look, scores in enumerate((0.5, 0.5, 0.9, 0.9)):
        check_drift(see(10 * look), memory, {NEW: asked(QUERIES, scores, look)})
    assert [(one.condition, one.check) for one in memory.standing.values()] == [
        (Condition.DRIFT, "drift of scores")
    ]


def test_few_answers_make_no_drift(see: Callable[..., Collected], memory: Memory) -> None:
    check_drift(see(), memory, {NEW: asked(QUERIES, 0.5, 1)})
    assert check_drift(see(10), memory, {NEW: asked(["other"], 0.9, 2, count=300)}) == {}
    assert not memory.standing


def test_a_shift_is_over_once_a_version_came_after_it(see: Callable[..., Collected], memory: Memory) -> None:
    other = [f"a {query} for a large garden party" for query in QUERIES]
    for look, words in enumerate((QUERIES, other, other, other)):
        check_drift(see(10 * look), memory, {NEW: asked(words, 0.5, look)})
    assert {one.condition for one in memory.standing.values()} == {Condition.DRIFT}
    assert memory.stable is not None
    memory.stable.since = NOON + timedelta(minutes=35)
    for look in (4, 5, 6):
        check_drift(see(10 * look), memory, {NEW: asked(other, 0.5, look)})
        assert not memory.standing
