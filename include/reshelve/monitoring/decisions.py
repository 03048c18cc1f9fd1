"""What each condition leads to: a table that is data. Pure functions.

The first row, from the top, whose condition was found and whose need is met, decides; the others are told beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from reshelve.monitoring.observations import Action, Condition, Finding, WatchDecision


class Requirement(StrEnum):
    """What a row asks of the situation."""

    NOTHING = "nothing"
    WAY_BACK = "there is a previous version, and nobody has rolled it back"
    GOOD_DATA = "the newest partition passed validation"
    NEWER_DATA = "it passed validation, and no version was trained on it"


@dataclass(frozen=True)
class Situation:
    """What the needs are asked of."""

    way_back: bool = False
    good_data: bool = False
    newer_data: bool = False

    def has(self, need: Requirement) -> bool:
        """Whether a need is met."""
        return {
            Requirement.NOTHING: True,
            Requirement.WAY_BACK: self.way_back,
            Requirement.GOOD_DATA: self.good_data,
            Requirement.NEWER_DATA: self.good_data and self.newer_data,
        }[need]


@dataclass(frozen=True)
class DecisionRow:
    """`condition`, where `need` is met, leads to `action`."""

    condition: Condition
    action: Action
    why: str
    need: Requirement = Requirement.NOTHING
    tells: bool = True


_C, _A, _N = Condition, Action, Requirement

TABLE: tuple[DecisionRow, ...] = (
    DecisionRow(
        _C.BAD_VERSION, _A.ROLL_BACK, "the version before it was good and is still loaded", _N.WAY_BACK
    ),
    DecisionRow(_C.BAD_CANARY, _A.WITHDRAW, "the stable version keeps serving"),
    DecisionRow(_C.BROKEN_DATA, _A.HOLD, "the next release may have been trained on it"),
    DecisionRow(_C.BAD_VERSION, _A.ALERT, "there is no version to roll back to"),
    DecisionRow(_C.NO_TRAFFIC, _A.HOLD, "a version released now could not be evaluated"),
    DecisionRow(_C.TAMPERED, _A.ALERT, "what serves stays as it is until a person has looked at the log"),
    DecisionRow(_C.BAD_SERVICE, _A.ALERT, "another version would not fix it"),
    DecisionRow(
        _C.DEAD_AGENT,
        _A.ALERT,
        "its model server keeps its versions and will not follow a release or rollback",
    ),
    DecisionRow(
        _C.DRIFT,
        _A.RETRAIN,
        "inputs have changed, and there is data that no version was trained on",
        _N.NEWER_DATA,
    ),
    DecisionRow(
        _C.DRIFT, _A.ALERT, "the newest version was already trained on the newest good data", _N.GOOD_DATA
    ),
    DecisionRow(
        _C.DRIFT, _A.ALERT, "the newest data did not pass validation, so nothing may be trained on it"
    ),
    DecisionRow(_C.LATE, _A.ALERT, "the serving version is getting old"),
    DecisionRow(_C.ODD, _A.ALERT, "no version is known to be the cause"),
    DecisionRow(_C.INCONCLUSIVE, _A.NOTHING, "the next look will decide", tells=False),
)


def decide(findings: Sequence[Finding], situation: Situation) -> WatchDecision:
    """The one decision of a look, before the guard."""
    for row in TABLE:
        found = next((one for one in findings if one.condition is row.condition), None)
        if found is not None and situation.has(row.need):
            return WatchDecision(
                condition=row.condition,
                action=row.action,
                reason=f"{found.reason}: {row.why}",
                cause=found.cause,
                version=found.version,
                alert=row.tells,
            )
    return WatchDecision(
        condition=Condition.QUIET, action=Action.NOTHING, reason="everything that was checked is healthy"
    )
