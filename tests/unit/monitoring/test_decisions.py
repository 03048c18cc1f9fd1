"""The table, row by row, and which row wins."""

from __future__ import annotations

import pytest

from reshelve.monitoring.decisions import TABLE, DecisionRow, Requirement, Situation, decide
from reshelve.monitoring.observations import Action, Condition, Finding

ALL = Situation(way_back=True, good_data=True, newer_data=True)
NOTHING = Situation()
C, A = Condition, Action

EXPECTED = [
    pytest.param(C.BAD_VERSION, ALL, A.ROLL_BACK, id="a bad version goes back"),
    pytest.param(C.BAD_VERSION, NOTHING, A.ALERT, id="but not where there is no previous one"),
    pytest.param(C.BAD_CANARY, NOTHING, A.WITHDRAW, id="a bad canary is withdrawn"),
    pytest.param(C.BROKEN_DATA, ALL, A.HOLD, id="broken data holds releases"),
    pytest.param(C.NO_TRAFFIC, ALL, A.HOLD, id="no traffic holds releases"),
    pytest.param(C.TAMPERED, ALL, A.ALERT, id="a log that somebody wrote into is told"),
    pytest.param(C.BAD_SERVICE, ALL, A.ALERT, id="a bad service is told"),
    pytest.param(C.DEAD_AGENT, ALL, A.ALERT, id="a dead agent is told"),
    pytest.param(C.DRIFT, ALL, A.RETRAIN, id="drift is learnt from"),
    pytest.param(C.DRIFT, Situation(good_data=True), A.ALERT, id="but not twice from the same data"),
    pytest.param(C.DRIFT, Situation(newer_data=True), A.ALERT, id="and never from data that failed its gate"),
    pytest.param(C.LATE, ALL, A.ALERT, id="what is late is told"),
    pytest.param(C.ODD, ALL, A.ALERT, id="what is out of the ordinary is told"),
    pytest.param(C.INCONCLUSIVE, ALL, A.NOTHING, id="what is inconclusive is said"),
]


def finding(condition: Condition) -> Finding:
    return Finding(condition=condition, check="test", reason=f"it is {condition.value}", version=7)


@pytest.mark.parametrize(("condition", "situation", "action"), EXPECTED)
def test_each_condition_leads_to_its_action(
    condition: Condition, situation: Situation, action: Action
) -> None:
    found = decide([finding(condition)], situation)
    assert (found.condition, found.action, found.version) == (condition, action, 7)
    assert found.reason.startswith(f"it is {condition.value}: ") and found.cause
    assert found.alert is (action is not Action.NOTHING)


def test_every_row_is_asked_for_above() -> None:
    def answer(condition: Condition, situation: Situation) -> DecisionRow:
        return next(row for row in TABLE if row.condition is condition and situation.has(row.need))

    reached = {answer(*param.values[:2]) for param in EXPECTED}
    assert reached == set(TABLE)
    assert {row.condition for row in TABLE} == set(Condition) - {Condition.QUIET}


def test_without_a_finding_nothing_is_done() -> None:
    found = decide([], ALL)
    assert (found.condition, found.action, found.alert) == (Condition.QUIET, Action.NOTHING, False)


@pytest.mark.parametrize("upper", range(len(TABLE)))
def test_the_first_row_decides(upper: int) -> None:
    """Everything that the rows below are about is found too."""
    row = TABLE[upper]
    below = [finding(one.condition) for one in reversed(TABLE[upper:])]
    met = {
        Requirement.WAY_BACK: "way_back",
        Requirement.GOOD_DATA: "good_data",
        Requirement.NEWER_DATA: "newer_data",
    }.get(row.need)
    situation = Situation(**({met: True, "good_data": row.need is not Requirement.WAY_BACK} if met else {}))
    found = decide(below, situation)
    assert (found.condition, found.action) == (row.condition, row.action)
