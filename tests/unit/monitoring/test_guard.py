"""However a signal flaps, the watch does no more than it may."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reshelve.config.watch import Guard
from reshelve.monitoring.decisions import Situation, decide
from reshelve.monitoring.guard import guarded, news
from reshelve.monitoring.observations import Action, Condition, Finding, WatchDecision
from reshelve.monitoring.watch_state import Act, Memory

NOON = datetime(2011, 8, 30, 12, tzinfo=UTC)
EVERYTHING = Situation(way_back=True, good_data=True, newer_data=True)


def decision(action: Action = Action.ROLL_BACK, cause: str = "bad version: errors 3") -> WatchDecision:
    return WatchDecision(
        condition=Condition.BAD_VERSION, action=action, reason="because", cause=cause, version=3
    )


def act(
    minutes_ago: float, action: Action = Action.ROLL_BACK, cause: str = "other", settled: bool = True
) -> Act:
    return Act(at=NOON - timedelta(minutes=minutes_ago), action=action, cause=cause, settled=settled)


@pytest.mark.parametrize(
    ("rules", "acts", "words"),
    [
        pytest.param(Guard(), [], "", id="nothing was done yet"),
        pytest.param(Guard(acts=("hold",)), [], "does not allow", id="the ranker file forbids it"),
        pytest.param(Guard(), [act(59)], "must take effect", id="within the cool-down"),
        pytest.param(Guard(), [act(61)], "", id="after the cool-down"),
        pytest.param(Guard(), [act(61), act(300), act(1400)], "3 automatic actions", id="enough for a day"),
        pytest.param(Guard(), [act(61), act(300), act(1441)], "", id="the first of three is a day old"),
        pytest.param(
            Guard(),
            [act(5000, cause="bad version: errors 3")],
            "already done for this cause",
            id="never twice for one cause",
        ),
        pytest.param(Guard(), [act(1, settled=False)], "under way", id="another look is acting"),
        pytest.param(Guard(), [act(6, settled=False)], "", id="another look was cut off before it acted"),
        pytest.param(Guard(), [act(1, Action.HOLD)], "", id="a hold is no move"),
    ],
)
def test_what_may_be_done(rules: Guard, acts: list[Act], words: str) -> None:
    found = guarded(decision(), Memory(acts=acts), rules, NOON)
    assert found.action is (Action.ALERT if words else Action.ROLL_BACK)
    assert words in found.refused and bool(words) == bool(found.refused)


def test_a_hold_is_never_refused_for_what_was_done_before() -> None:
    acts = [act(1), act(2), act(3), act(4, settled=False)]
    assert guarded(decision(Action.HOLD), Memory(acts=acts), Guard(), NOON).action is Action.HOLD


conditions = st.sampled_from([c for c in Condition if c is not Condition.QUIET])
looks = st.lists(
    st.tuples(st.lists(conditions, max_size=3), st.integers(1, 4), st.integers(1, 90)),
    min_size=1,
    max_size=80,
)


@settings(max_examples=200, deadline=None)
@given(looks, st.integers(0, 4), st.sampled_from([0, 10, 60, 240]))
def test_a_flapping_signal_stays_within_bounds(
    signal: list[tuple[list[Condition], int, int]], most: int, cooldown: int
) -> None:
    """Whatever is found, look after look, of whichever version, at whatever distance."""
    memory, rules, now = Memory(), Guard(actions_a_day=most, cooldown_minutes=cooldown), NOON
    done: list[Act] = []
    for found, version, minutes in signal:
        now += timedelta(minutes=minutes)
        findings = [Finding(condition=one, check="test", reason="so", version=version) for one in found]
        answer = guarded(decide(findings, EVERYTHING), memory, rules, now)
        begun = memory.begin(answer, now)
        if begun is not None:
            memory.settle(begun, happened=True)
            done.append(begun)
    for one, other in itertools.pairwise(done):
        assert other.at - one.at >= timedelta(minutes=cooldown)
    for last in done:
        assert len([one for one in done if timedelta(0) <= last.at - one.at < timedelta(days=1)]) <= most
    back = [one.cause for one in done if one.action in (Action.ROLL_BACK, Action.WITHDRAW)]
    assert len(back) == len(set(back)), "rolled back twice for one cause"


def test_people_are_told_once_and_again_when_it_comes_back() -> None:
    memory, rules = Memory(), Guard(cooldown_minutes=60, repeat_hours=24)
    dead = Finding(condition=Condition.DEAD_AGENT, check="agents", reason="silent", evidence={"cause": "a"})
    told = []
    for minutes in (0, 10, 20, 100, 110, 160):  # 20 → 100: it was gone for longer than the cool-down
        if news([dead], memory, rules, NOON + timedelta(minutes=minutes)):
            told.append(minutes)
    assert told == [0, 100]
    lasting = [
        hours for hours in range(60) if news([dead], memory, rules, NOON + timedelta(days=5, hours=hours))
    ]
    assert lasting == [0, 24, 48], "what lasts is told once a day"
