"""What each condition leads to: a table that is data. Pure functions.

The first row, from the top, whose condition was found and whose need is met, decides; the others are told beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from reshelve.monitoring.observations import Action, Condition, Decision, Finding


class Need(StrEnum):
    """What a row asks of the situation."""

    NOTHING = "nothing"
    WAY_BACK = "there is a previous version, and nobody has taken it back"
    GOOD_DATA = "the newest partition passed validation"
    NEWER_DATA = "it passed validation, and no version was trained on it"


@dataclass(frozen=True)
class Situation:
    """What the needs are asked of."""

    way_back: bool = False
    good_data: bool = False
    newer_data: bool = False

    def has(self, need: Need) -> bool:
        """Whether a need is met."""
        return {
            Need.NOTHING: True,
            Need.WAY_BACK: self.way_back,
            Need.GOOD_DATA: self.good_data,
            Need.NEWER_DATA: self.good_data and self.newer_data,
        }[need]


@dataclass(frozen=True)
class Row:
    """`condition`, where `need` is met, leads to `action`."""

    condition: Condition
    action: Action
    why: str
    need: Need = Need.NOTHING
    tells: bool = True


_C, _A, _N = Condition, Action, Need

TABLE: tuple[Row, ...] = (
    Row(_C.BAD_VERSION, _A.ROLL_BACK, "the version before it was good and is still loaded", _N.WAY_BACK),
    Row(_C.BAD_CANARY, _A.WITHDRAW, "the stable version serves on"),
    Row(_C.BROKEN_DATA, _A.HOLD, "what is released next may have learnt from it"),
    Row(_C.BAD_VERSION, _A.ALERT, "there is no version to go back to"),
    Row(_C.NO_TRAFFIC, _A.HOLD, "nothing that is released now can be judged"),
    Row(_C.BAD_SERVICE, _A.ALERT, "another version would not mend it"),
    Row(
        _C.DEAD_AGENT, _A.ALERT, "its model server keeps what it has, and follows no release and no rollback"
    ),
    Row(
        _C.DRIFT,
        _A.RETRAIN,
        "customers changed, and there is data that no version has learnt from",
        _N.NEWER_DATA,
    ),
    Row(_C.DRIFT, _A.ALERT, "the newest version has learnt from the newest good data already", _N.GOOD_DATA),
    Row(_C.DRIFT, _A.ALERT, "the newest data was not found good: nothing may learn from it"),
    Row(_C.LATE, _A.ALERT, "what serves grows old"),
    Row(_C.ODD, _A.ALERT, "no version is known to be the cause"),
    Row(_C.INCONCLUSIVE, _A.NOTHING, "the next look will tell", tells=False),
)


def decide(findings: Sequence[Finding], situation: Situation) -> Decision:
    """The one decision of a look, before the guard."""
    for row in TABLE:
        found = next((one for one in findings if one.condition is row.condition), None)
        if found is not None and situation.has(row.need):
            return Decision(
                condition=row.condition,
                action=row.action,
                reason=f"{found.reason}: {row.why}",
                cause=found.cause,
                version=found.version,
                alert=row.tells,
            )
    return Decision(condition=Condition.QUIET, action=Action.NOTHING, reason="all that was judged is well")
