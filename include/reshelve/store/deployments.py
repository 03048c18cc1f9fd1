"""What should serve: an append-only log and one pointer per ranker under `deployments/<ranker>/` on S3.

The log is the truth order: a move appends `log/<sequence>.json` (it must not exist), then moves
`pointer.json` by compare-and-swap. A mover killed between the two leaves an entry that the next mover
carries to the pointer before its own change.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from reshelve.errors import ConfigurationError, DataError, TryAgainError
from reshelve.store.objects import ObjectStore, PreconditionFailedError
from reshelve.store.rollout import Event, Place, Plan, State, follow
from reshelve.store.versions import require_manifest

_TRIES = 20
_WAYS_BACK = 50


class Pointer(BaseModel):
    """What one ranker should serve, and where its release is."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    ranker: str
    sequence: int = Field(0, ge=0, description="Moves so far; equal to the number of the newest log entry.")
    stable: int | None = Field(None, description="The version customers get.")
    previous: int | None = Field(
        None, description="The last other stable version: kept loaded, the way back."
    )
    canary: int | None = Field(None, description="The version being released.")
    share: float = Field(0.0, ge=0, le=1, description="Share of requests for the canary.")
    state: State = Field(State.IDLE, description="Where the release is.")
    step: int = Field(0, ge=0, description="Shares of the plan that were begun.")
    plan: Plan = Plan()
    held: str = Field("", description="Why the release does not go on; empty while it does.")
    served: tuple[int, ...] = Field(
        (), description="Versions that were stable, the newest last: where a rollback may go."
    )
    moved_at: datetime | None = None
    by: str = ""
    reason: str = ""

    @model_validator(mode="before")
    @classmethod
    def _from_before_there_were_states(cls, document: Any) -> Any:
        if isinstance(document, dict) and "state" not in document and document.get("canary") is not None:
            return {**document, "state": State.LOADING, "share": 0.0}
        return document

    @model_validator(mode="after")
    def _parts_agree(self) -> Pointer:
        if (self.canary is None) != (self.state is State.IDLE):
            raise ValueError(f"a release that is {self.state.value} with the canary {self.canary}")
        if self.share and self.state not in (State.CANARY, State.APPROVAL, State.READY):
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
        place = follow(Place(self.state, self.step, self.share), event, changes.get("plan", self.plan))
        if place is None:
            return None
        found = {"held": "", "state": place.state, "step": place.step, "share": place.share, **changes}
        if place.state is State.IDLE:
            found = {**found, "canary": None, "plan": Plan()}
        return Pointer.model_validate({**self.model_dump(), **found})


class Entry(BaseModel):
    """One move of the pointer."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    sequence: int
    action: str = Field(description="The event.")
    pointer: Pointer = Field(description="The state after it.")
    evidence: dict[str, Any] = Field(default_factory=dict, description="What it was decided on.")


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
                + (f": {pointer.held})" if pointer.held else ")"),
            )
        if self.version in (pointer.stable, pointer.canary):
            return pointer
        return pointer.after(Event.OFFER, canary=self.version, plan=self.plan) or pointer


@dataclass(frozen=True)
class Advance:
    """What was found in a state of a release. Where another mover has gone on meanwhile, nothing is to do."""

    version: int
    event: Event
    state: State
    step: int = 0
    evidence: dict[str, Any] = field(default_factory=dict)
    held: str = ""

    @property
    def action(self) -> str:
        """The event."""
        return self.event

    def apply(self, pointer: Pointer) -> Pointer:
        """Raises TryAgainError where the version is not being released any more, or the table has no such way."""
        if pointer.stable == self.version:
            return pointer
        _still(pointer, self.version)
        if (pointer.state, pointer.step) != (self.state, self.step):
            return pointer
        found = pointer.after(self.event, held=self.held)
        if found is None or self.event in (Event.PROMOTE, Event.WITHDRAW, Event.ROLLBACK):
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
        """Raises TryAgainError where the release does not wait for a person."""
        if pointer.stable == self.version or (
            pointer.canary == self.version and pointer.state is State.READY
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
        """Raises TryAgainError where it is the canary no more (somebody took it back), or is not ready."""
        if pointer.stable == self.version:
            return pointer
        _still(pointer, self.version)
        found = pointer.after(Event.PROMOTE, **_stable(pointer, self.version))
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
                f"{pointer.ranker}: version {self.version} never was stable, a rollback cannot go there",
                f"versions that were: {known}; to serve another one, release it",
            )
        return pointer.after(Event.ROLLBACK, **_stable(pointer, self.version)) or pointer


def _still(pointer: Pointer, version: int) -> None:
    if pointer.canary != version:
        raise TryAgainError(
            f"{pointer.ranker}: version {version} is not being released any more",
            f"the deployment log's newest entry is by {pointer.by}: {pointer.reason}",
        )


def _stable(pointer: Pointer, version: int) -> dict[str, Any]:
    previous = pointer.previous if pointer.stable in (None, version) else pointer.stable
    served = [v for v in (*pointer.served, *(v for v in (pointer.stable,) if v is not None)) if v != version]
    return {
        "stable": version,
        "previous": None if previous == version else previous,
        "served": tuple(dict.fromkeys([*served, version]))[-_WAYS_BACK:],
    }


def pointer_key(ranker: str) -> str:
    """The pointer's key on S3."""
    return f"deployments/{ranker}/pointer.json"


def _entry_key(ranker: str, sequence: int) -> str:
    return f"deployments/{ranker}/log/{sequence:08d}.json"


def deployed_rankers(store: ObjectStore) -> list[str]:
    """Rankers that have anything under `deployments/`, sorted."""
    return store.folders("deployments/")


def parse_pointer(body: bytes, ranker: str) -> Pointer:
    """The pointer in an object's bytes. Raises DataError where it is damaged or another ranker's."""
    try:
        pointer = Pointer.model_validate_json(body)
    except ValidationError as error:
        raise DataError(f"{pointer_key(ranker)} is damaged", str(error.errors()[0]["msg"])) from error
    if pointer.ranker != ranker:
        raise DataError(f"{pointer_key(ranker)} is damaged", f"it names the ranker {pointer.ranker!r}")
    return pointer


def read_pointer(store: ObjectStore, ranker: str) -> Pointer | None:
    """What should serve, or None where nothing was ever released."""
    found = store.get(pointer_key(ranker))
    return None if found is None else parse_pointer(found.body, ranker)


def read_log(store: ObjectStore, ranker: str) -> list[Entry]:
    """All moves, oldest first."""
    keys = [key for key, _ in store.list(f"deployments/{ranker}/log/")]
    return [_entry(store, key) for key in keys]


def move_pointer(store: ObjectStore, ranker: str, change: Change, *, by: str, reason: str) -> Pointer:
    """Apply `change` to the newest state, once, and return the state after it.

    A change that changes nothing makes no entry. Raises DataError where a version is not published, TryAgainError
    where the change does not fit the state or movers collide for too long, ConfigurationError without a name.
    """
    if not by:
        raise ConfigurationError("a move of the pointer needs a name", "say who asks: --by NAME")
    for _ in range(_TRIES):
        pointer, etag = _settled(store, ranker)
        wanted = change.apply(pointer)
        if wanted == pointer:
            return pointer
        new_stable = wanted.wanted & {wanted.stable} - {pointer.stable}
        for version in wanted.wanted - pointer.wanted | new_stable:
            require_manifest(store, ranker, version)  # published, and signed by a trusted key
        moved = wanted.model_copy(
            update={
                "sequence": pointer.sequence + 1,
                "moved_at": datetime.now(UTC),
                "by": by,
                "reason": reason,
            }
        )
        entry = Entry(sequence=moved.sequence, action=change.action, pointer=moved, evidence=change.evidence)
        try:
            store.put_json(_entry_key(ranker, moved.sequence), entry.model_dump(mode="json"), if_absent=True)
        except PreconditionFailedError:
            continue  # another mover wrote this entry: look again at what it made
        _carry(store, entry, etag)
        return moved
    raise TryAgainError(f"{ranker}: the pointer is being moved by others", f"gave up after {_TRIES} tries")


def newest(store: ObjectStore, pointer: Pointer) -> Pointer:
    """The pointer that the log explains: `pointer`, or a later one where an old pointer object was put back.

    Changes nothing. Raises DataError where the log does not have this very pointer.
    """
    key = _entry_key(pointer.ranker, pointer.sequence)
    if pointer.sequence and _entry(store, key).pointer != pointer:
        raise DataError(f"{pointer_key(pointer.ranker)} is not what the log says", store.uri(key))
    while store.exists(key := _entry_key(pointer.ranker, pointer.sequence + 1)):
        pointer = _entry(store, key).pointer
    return pointer


def step_began(store: ObjectStore, pointer: Pointer) -> int:
    """The number of the log entry that brought the release to the step where it is."""
    began = pointer.sequence
    while began > 1:
        before = _entry(store, _entry_key(pointer.ranker, began - 1)).pointer
        if (before.canary, before.state, before.step) != (pointer.canary, pointer.state, pointer.step):
            break
        began -= 1
    return began


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
            Place(before.state, before.step, before.share),
            Event(entry.action),
            now.plan if entry.action == Event.OFFER else before.plan,
        )
        if place != Place(now.state, now.step, now.share):
            found.append(f"entry {number}: {entry.action} does not lead from {before.state} to {now.state}")
        if now.stable != before.stable and entry.action not in (Event.PROMOTE, Event.ROLLBACK):
            found.append(f"entry {number}: {entry.action} changed the stable version")
        if entry.action == Event.PROMOTE and now.stable != before.canary:
            found.append(f"entry {number}: {now.stable} was promoted and {before.canary} was the canary")
        if entry.action == Event.ROLLBACK and now.stable not in before.way_back:
            found.append(f"entry {number}: rolled back to {now.stable}, which never was stable")
        before = now
    return found


def settle(store: ObjectStore, ranker: str) -> Pointer | None:
    """Carry an entry left by a killed mover to the pointer; the pointer after it, or None without any move."""
    pointer, etag = _settled(store, ranker)
    return None if etag is None else pointer


def _settled(store: ObjectStore, ranker: str) -> tuple[Pointer, str | None]:
    """The newest state and the pointer object's entity tag, after repairing what a killed mover left."""
    while True:
        found = store.get(pointer_key(ranker))
        pointer = Pointer(ranker=ranker) if found is None else parse_pointer(found.body, ranker)
        etag = None if found is None else found.etag
        key = _entry_key(ranker, pointer.sequence + 1)
        if not store.exists(key):
            return pointer, etag
        _carry(store, _entry(store, key), etag)


def _carry(store: ObjectStore, entry: Entry, etag: str | None) -> None:
    """Move the pointer to an entry. Losing the swap is no failure: whoever won carried this entry, or a later one."""
    pointer: dict[str, Any] = entry.pointer.model_dump(mode="json")
    try:
        if etag is None:
            store.put_json(pointer_key(entry.pointer.ranker), pointer, if_absent=True)
        else:
            store.put_json(pointer_key(entry.pointer.ranker), pointer, if_match=etag)
    except PreconditionFailedError:
        return


def _entry(store: ObjectStore, key: str) -> Entry:
    found = store.get(key)
    try:
        return Entry.model_validate_json(b"" if found is None else found.body)
    except ValidationError as error:
        raise DataError(
            f"{store.uri(key)} is damaged", "an entry of the deployment log is never changed"
        ) from error
