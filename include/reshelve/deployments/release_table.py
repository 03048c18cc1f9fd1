"""The states of a release and what leads from one to the next, as a table. Pure: nothing here reads or writes.

loading: the agents copy, verify and load the version beside the stable one. probing: it is asked what must be
known. shadow: it answers recorded requests beside the stable version. indexing: the shop's own index takes in its vectors. canary: it gets a share of the customers, in
steps. approval: a person looks. ready: it may become stable. idle: nothing is being released.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator


class ReleaseState(StrEnum):
    """Where a ranker's release is."""

    IDLE = "idle"
    LOADING = "loading"
    PROBING = "probing"
    SHADOW = "shadow"
    INDEXING = "indexing"
    CANARY = "canary"
    APPROVAL = "approval"
    READY = "ready"


class Event(StrEnum):
    """What may happen to it; the `action` of a log entry."""

    OFFER = "offer"
    LOADED = "loaded"
    PROBED = "probed"
    AGREED = "agreed"
    INDEXED = "indexed"
    PASSED = "passed"
    APPROVE = "approve"
    PROMOTE = "promote"
    HOLD = "hold"
    WITHDRAW = "withdraw"
    ROLLBACK = "rollback"
    VOUCH = "vouch"


class PlanRequirement(StrEnum):
    """What a row asks of the plan."""

    NOTHING = "nothing"
    SHADOW = "a shadow is planned"
    INDEX = "an index is waited for"
    SHARE = "a share is left"
    PERSON = "a person has to approve"


class Plan(BaseModel):
    """The way of one release, written down when it is offered: a resumed one goes the way it began."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    shadow: bool = False
    index: bool = Field(False, description="The shop's own index has to hold the version.")
    shares: tuple[Annotated[float, Field(gt=0, le=1)], ...] = ()
    approval: bool = False
    another_person: bool = Field(False, description="Who requested the release may not approve it.")
    requested_by: str = Field("", description="Who that is; empty: nobody, as where a schedule requested it.")
    allow_held: bool = Field(False, description="A person lets a version serve that the gate held.")

    @field_validator("shares")
    @classmethod
    def _rising(cls, shares: tuple[float, ...]) -> tuple[float, ...]:
        if list(shares) != sorted(set(shares)):
            raise ValueError("shares have to rise")
        return shares

    def may_approve(self, name: str) -> bool:
        """Whether somebody of that name may approve the release. Upper and lower case make no other person."""
        asked = self.another_person and self.requested_by
        return not asked or name.strip().casefold() != self.requested_by.strip().casefold()


@dataclass(frozen=True)
class Transition:
    """In `state`, `event` leads to `then`, where the plan has what it needs."""

    state: ReleaseState
    event: Event
    then: ReleaseState
    need: PlanRequirement = PlanRequirement.NOTHING


_S, _E, _N = ReleaseState, Event, PlanRequirement
ACTIVE = (_S.LOADING, _S.PROBING, _S.SHADOW, _S.INDEXING, _S.CANARY, _S.APPROVAL, _S.READY)

# The first row that fits decides.
TABLE: tuple[Transition, ...] = (
    Transition(_S.IDLE, _E.OFFER, _S.LOADING),
    Transition(_S.LOADING, _E.LOADED, _S.PROBING),
    Transition(_S.PROBING, _E.PROBED, _S.SHADOW, _N.SHADOW),
    Transition(_S.PROBING, _E.PROBED, _S.INDEXING, _N.INDEX),
    Transition(_S.PROBING, _E.PROBED, _S.CANARY, _N.SHARE),
    Transition(_S.PROBING, _E.PROBED, _S.APPROVAL, _N.PERSON),
    Transition(_S.PROBING, _E.PROBED, _S.READY),
    Transition(_S.SHADOW, _E.AGREED, _S.INDEXING, _N.INDEX),
    Transition(_S.SHADOW, _E.AGREED, _S.CANARY, _N.SHARE),
    Transition(_S.SHADOW, _E.AGREED, _S.APPROVAL, _N.PERSON),
    Transition(_S.SHADOW, _E.AGREED, _S.READY),
    Transition(_S.INDEXING, _E.INDEXED, _S.CANARY, _N.SHARE),
    Transition(_S.INDEXING, _E.INDEXED, _S.APPROVAL, _N.PERSON),
    Transition(_S.INDEXING, _E.INDEXED, _S.READY),
    Transition(_S.CANARY, _E.PASSED, _S.CANARY, _N.SHARE),
    Transition(_S.CANARY, _E.PASSED, _S.APPROVAL, _N.PERSON),
    Transition(_S.CANARY, _E.PASSED, _S.READY),
    Transition(_S.APPROVAL, _E.APPROVE, _S.READY),
    Transition(_S.READY, _E.PROMOTE, _S.IDLE),
    Transition(_S.SHADOW, _E.HOLD, _S.SHADOW),
    Transition(_S.INDEXING, _E.HOLD, _S.INDEXING),
    Transition(_S.CANARY, _E.HOLD, _S.CANARY),
    Transition(_S.APPROVAL, _E.HOLD, _S.APPROVAL),
    *(Transition(state, _E.WITHDRAW, _S.IDLE) for state in ACTIVE),
    *(Transition(state, _E.ROLLBACK, _S.IDLE) for state in (_S.IDLE, *ACTIVE)),
    *(Transition(state, _E.VOUCH, state) for state in (_S.IDLE, *ACTIVE)),
)


@dataclass(frozen=True)
class ReleasePosition:
    """A state, how many shares of the plan were begun, and the share of the customers."""

    state: ReleaseState
    step: int = 0
    share: float = 0.0


def follow(place: ReleasePosition, event: Event, plan: Plan) -> ReleasePosition | None:
    """Where `event` leads, or None where the table has no such way."""
    for row in TABLE:
        if (row.state, row.event) == (place.state, event) and _has(plan, place.step, row.need):
            return _at(row, place, plan)
    return None


def _has(plan: Plan, step: int, need: PlanRequirement) -> bool:
    return {
        PlanRequirement.NOTHING: True,
        PlanRequirement.SHADOW: plan.shadow,
        PlanRequirement.INDEX: plan.index,
        PlanRequirement.SHARE: step < len(plan.shares),
        PlanRequirement.PERSON: plan.approval,
    }[need]


def _at(row: Transition, place: ReleasePosition, plan: Plan) -> ReleasePosition:
    if row.then is ReleaseState.IDLE:
        return ReleasePosition(ReleaseState.IDLE)
    if row.need is PlanRequirement.SHARE:  # into the next step: the share rises
        return ReleasePosition(row.then, place.step + 1, plan.shares[place.step])
    return ReleasePosition(
        row.then, place.step, place.share
    )  # a share once reached stays while the release waits
