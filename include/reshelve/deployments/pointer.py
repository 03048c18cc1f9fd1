"""The state of one ranker's deployment, a log entry, and whether a log is a way through the table of a release."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from reshelve.deployments.release_table import Event, Plan, ReleasePosition, ReleaseState, follow
from reshelve.names import RankerName, Version


class Pointer(BaseModel):
    """What one ranker should serve, and where its release is."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    ranker: RankerName
    sequence: int = Field(0, ge=0, description="Moves so far; equal to the number of the newest log entry.")
    stable: Version | None = Field(None, description="The version customers get.")
    previous: Version | None = Field(
        None, description="The last other stable version: kept loaded, the way back."
    )
    canary: Version | None = Field(None, description="The version being released.")
    share: float = Field(0.0, ge=0, le=1, description="Share of requests for the canary.")
    state: ReleaseState = Field(ReleaseState.IDLE, description="Where the release is.")
    step: int = Field(0, ge=0, description="Shares of the plan that were begun.")
    plan: Plan = Plan()
    held: str = Field("", description="Why the release does not go on; empty while it does.")
    served: tuple[Version, ...] = Field(
        (), description="Versions that were stable, the newest last: where a rollback may go."
    )
    moved_at: datetime | None = None
    by: str = ""
    reason: str = ""

    @model_validator(mode="before")
    @classmethod
    def _from_before_there_were_states(cls, document: Any) -> Any:
        if isinstance(document, dict) and "state" not in document and document.get("canary") is not None:
            return {**document, "state": ReleaseState.LOADING, "share": 0.0}
        return document

    @model_validator(mode="after")
    def _parts_agree(self) -> Pointer:
        if (self.canary is None) != (self.state is ReleaseState.IDLE):
            raise ValueError(f"a release that is {self.state.value} with the canary {self.canary}")
        if self.share and self.state not in (ReleaseState.CANARY, ReleaseState.APPROVAL, ReleaseState.READY):
            raise ValueError(f"a share while the release is {self.state.value}")
        if self.stable is not None and self.stable in (self.previous, self.canary):
            raise ValueError(f"{self.stable} is stable and something else")
        return self

    @property
    def wanted(self) -> frozenset[int]:
        """Versions a server must hold."""
        return frozenset(v for v in (self.stable, self.previous, self.canary) if v is not None)

    @property
    def way_back(self) -> frozenset[int]:
        """Versions that a rollback may go to: customers had them."""
        return frozenset(v for v in (*self.served, self.stable, self.previous) if v is not None)

    def after(self, event: Event, **changes: Any) -> Pointer | None:
        """The pointer where `event` leads, with `changes`; None where the table has no such way."""
        place = follow(
            ReleasePosition(self.state, self.step, self.share), event, changes.get("plan", self.plan)
        )
        if place is None:
            return None
        found = {"held": "", "state": place.state, "step": place.step, "share": place.share, **changes}
        if place.state is ReleaseState.IDLE:
            found = {**found, "canary": None, "plan": Plan()}
        return Pointer.model_validate({**self.model_dump(), **found})


class Entry(BaseModel):
    """One move of the pointer."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    sequence: int
    action: str = Field(description="The event.")
    pointer: Pointer = Field(description="The state after it.")
    evidence: dict[str, Any] = Field(default_factory=dict, description="What it was decided on.")
    before: str = Field("", description="sha256 of the entry before it, as stored; empty: there is none.")


def problems(log: list[Entry]) -> list[str]:
    """Where a deployment log is no way through the table of a release; empty where it explains its last state."""
    found = []
    before = None
    for number, entry in enumerate(log, 1):
        now = entry.pointer
        before = before or Pointer(ranker=now.ranker)
        if entry.sequence != number or now.sequence != number:
            found.append(f"entry {number} has the number {entry.sequence}")
        place = follow(
            ReleasePosition(before.state, before.step, before.share),
            Event(entry.action),
            now.plan if entry.action == Event.OFFER else before.plan,
        )
        if place != ReleasePosition(now.state, now.step, now.share):
            found.append(f"entry {number}: {entry.action} does not lead from {before.state} to {now.state}")
        if now.stable != before.stable and entry.action not in (Event.PROMOTE, Event.ROLLBACK):
            found.append(f"entry {number}: {entry.action} changed the stable version")
        if entry.action == Event.PROMOTE and now.stable != before.canary:
            found.append(f"entry {number}: {now.stable} was promoted and {before.canary} was the canary")
        if entry.action == Event.ROLLBACK and now.stable not in before.way_back:
            found.append(f"entry {number}: rolled back to {now.stable}, which was never stable")
        before = now
    return found
