"""The moves of a pointer, each a function of the state it meets: asked twice, or after a lost race, it does no more."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from reshelve.deployments.pointer import Pointer
from reshelve.deployments.release_table import Event, Plan, ReleaseState
from reshelve.errors import DataError, TryAgainError

_WAYS_BACK = 50
_NO_STEP = (Event.PROMOTE, Event.WITHDRAW, Event.ROLLBACK, Event.VOUCH)


class Change(Protocol):
    """A move as a function of the state it meets: a mover that lost a race applies it again to the fresh state."""

    @property
    def action(self) -> str:
        """The event."""
        ...

    @property
    def evidence(self) -> dict[str, Any]:
        """What it was decided on."""
        ...

    def apply(self, pointer: Pointer) -> Pointer:
        """The state wanted; equal to `pointer` where nothing is to do."""
        ...


@dataclass(frozen=True)
class Offer:
    """Load a version beside the stable one, and go the way of `plan`."""

    version: int
    plan: Plan = field(default_factory=Plan)
    action: ClassVar[str] = Event.OFFER
    evidence: ClassVar[dict[str, Any]] = {}

    def apply(self, pointer: Pointer) -> Pointer:
        """Raises TryAgainError where another version is being released. One under way keeps its plan."""
        if pointer.canary not in (None, self.version):
            raise TryAgainError(
                f"{pointer.ranker}: version {pointer.canary} is being released",
                f"version {self.version} has to wait until that release ends ({pointer.state.value}"
                + (f": {pointer.held}" if pointer.held else "")
                + f"); if it has been abandoned: reshelve withdraw --ranker {pointer.ranker}",
            )
        if self.version in (pointer.stable, pointer.canary):
            return pointer
        return pointer.after(Event.OFFER, canary=self.version, plan=self.plan) or pointer


@dataclass(frozen=True)
class Advance:
    """What was found in a state of a release. Where another mover has gone on meanwhile, nothing is to do."""

    version: int
    event: Event
    state: ReleaseState
    step: int = 0
    evidence: dict[str, Any] = field(default_factory=dict)
    held: str = ""

    @property
    def action(self) -> str:
        """The event."""
        return self.event

    def apply(self, pointer: Pointer) -> Pointer:
        """Raises DataError where the version is no longer being released, TryAgainError where the table has no such way."""
        if pointer.stable == self.version:
            return pointer
        _still(pointer, self.version)
        if (pointer.state, pointer.step) != (self.state, self.step):
            return pointer
        found = pointer.after(self.event, held=self.held)
        if found is None or self.event in _NO_STEP:
            raise TryAgainError(
                f"{pointer.ranker}: a release that is {self.state.value} cannot take {self.event.value}"
            )
        return found


@dataclass(frozen=True)
class Approve:
    """A person agrees."""

    version: int
    action: ClassVar[str] = Event.APPROVE
    evidence: ClassVar[dict[str, Any]] = {}

    def apply(self, pointer: Pointer) -> Pointer:
        """Raises TryAgainError where the release does not wait for a person yet, DataError where it was taken back."""
        if pointer.stable == self.version or (
            pointer.canary == self.version and pointer.state is ReleaseState.READY
        ):
            return pointer
        _still(pointer, self.version)
        found = pointer.after(Event.APPROVE)
        if found is None:
            raise TryAgainError(
                f"{pointer.ranker}: version {self.version} does not wait for approval yet",
                f"its release is {pointer.state.value}",
            )
        return found


@dataclass(frozen=True)
class Promote:
    """Make the canary the stable version."""

    version: int
    action: ClassVar[str] = Event.PROMOTE
    evidence: ClassVar[dict[str, Any]] = {}

    def apply(self, pointer: Pointer) -> Pointer:
        """Raises DataError where it is the canary no more (somebody took it back), TryAgainError where it is not ready."""
        if pointer.stable == self.version:
            return pointer
        _still(pointer, self.version)
        found = pointer.after(Event.PROMOTE, **stable_after(pointer, self.version))
        if found is None:
            raise TryAgainError(
                f"{pointer.ranker}: version {self.version} is not ready",
                f"its release is {pointer.state.value}",
            )
        return found


@dataclass(frozen=True)
class Withdraw:
    """End a release without promoting."""

    version: int
    action: ClassVar[str] = Event.WITHDRAW
    evidence: dict[str, Any] = field(default_factory=dict)

    def apply(self, pointer: Pointer) -> Pointer:
        """Another version's release is left alone."""
        if pointer.canary != self.version:
            return pointer
        return pointer.after(Event.WITHDRAW) or pointer


@dataclass(frozen=True)
class Revert:
    """Serve a version again, at once; a release under way ends."""

    version: int
    action: ClassVar[str] = Event.ROLLBACK
    evidence: ClassVar[dict[str, Any]] = {}

    def apply(self, pointer: Pointer) -> Pointer:
        """The canary goes too: a rollback is somebody saying that something is wrong.

        Raises DataError where customers never had the version: a rollback is no way around a release.
        """
        if self.version not in pointer.way_back:
            known = ", ".join(map(str, sorted(pointer.way_back))) or "none"
            raise DataError(
                f"{pointer.ranker}: version {self.version} was never stable, so a rollback cannot use it",
                f"versions that were: {known}; to serve another one, release it",
            )
        return pointer.after(Event.ROLLBACK, **stable_after(pointer, self.version)) or pointer


def _still(pointer: Pointer, version: int) -> None:
    """A release that somebody took back is not tried again: the retry would offer it against their word."""
    if pointer.canary != version:
        raise DataError(
            f"{pointer.ranker}: version {version} is no longer being released",
            f"the deployment log's newest entry is by {pointer.by}: {pointer.reason}",
        )


def stable_after(pointer: Pointer, version: int) -> dict[str, Any]:
    """What becomes of stable, previous and served where a version becomes the stable one."""
    previous = pointer.previous if pointer.stable in (None, version) else pointer.stable
    served = [v for v in (*pointer.served, *(v for v in (pointer.stable,) if v is not None)) if v != version]
    return {
        "stable": version,
        "previous": None if previous == version else previous,
        "served": tuple(dict.fromkeys([*served, version]))[-_WAYS_BACK:],
    }
