"""What should serve: an append-only log and one pointer per ranker under `deployments/<ranker>/` on S3.

The log is the truth order: a move appends `log/<sequence>.json` (it must not exist), then moves
`pointer.json` by compare-and-swap. A mover killed between the two leaves an entry that the next mover
carries to the pointer before its own change.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from reshelve.errors import ConfigurationError, DataError, TryAgainError
from reshelve.store.objects import ObjectStore, PreconditionFailedError
from reshelve.store.versions import require_manifest

_TRIES = 20


class Pointer(BaseModel):
    """What one ranker should serve."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    ranker: str
    sequence: int = Field(0, ge=0, description="Moves so far; equal to the number of the newest log entry.")
    stable: int | None = Field(None, description="The version customers get.")
    previous: int | None = Field(
        None, description="The last other stable version: kept loaded, the way back."
    )
    canary: int | None = Field(None, description="The version being released.")
    share: float = Field(0.0, ge=0, le=1, description="Share of requests for the canary.")
    moved_at: datetime | None = None
    by: str = ""
    reason: str = ""

    @model_validator(mode="after")
    def _canary_and_share_agree(self) -> Pointer:
        if self.canary is None and self.share:
            raise ValueError("a share without a canary")
        return self

    @property
    def wanted(self) -> frozenset[int]:
        """Versions a server must hold."""
        return frozenset(v for v in (self.stable, self.previous, self.canary) if v is not None)


class Entry(BaseModel):
    """One move of the pointer."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    sequence: int
    action: str
    pointer: Pointer


class Change(Protocol):
    """A move as a function of the state it meets: a mover that lost a race applies it again to the fresh state."""

    action: ClassVar[str]

    def apply(self, pointer: Pointer) -> Pointer:
        """The state wanted; equal to `pointer` where nothing is to do."""
        ...


@dataclass(frozen=True)
class Offer:
    """Load a version beside the stable one, for a share of the requests (0: only those that ask for it)."""

    action: ClassVar[str] = "offer"
    version: int
    share: float = 0.0

    def apply(self, pointer: Pointer) -> Pointer:
        """Raises TryAgainError where another version is being released."""
        if pointer.canary not in (None, self.version):
            raise TryAgainError(
                f"{pointer.ranker}: version {pointer.canary} is being released",
                f"version {self.version} has to wait until that release ends",
            )
        if pointer.stable == self.version:
            return pointer
        return pointer.model_copy(update={"canary": self.version, "share": self.share})


@dataclass(frozen=True)
class Promote:
    """Make the canary the stable version."""

    action: ClassVar[str] = "promote"
    version: int

    def apply(self, pointer: Pointer) -> Pointer:
        """Raises TryAgainError where it is the canary no more: somebody took it back meanwhile."""
        if pointer.stable == self.version:
            return pointer
        if pointer.canary != self.version:
            raise TryAgainError(
                f"{pointer.ranker}: version {self.version} is not being released any more",
                f"the deployment log's newest entry is by {pointer.by}: {pointer.reason}",
            )
        return _stable(pointer, self.version)


@dataclass(frozen=True)
class Withdraw:
    """End a release without promoting."""

    action: ClassVar[str] = "withdraw"
    version: int

    def apply(self, pointer: Pointer) -> Pointer:
        """Another version's release is left alone."""
        if pointer.canary != self.version:
            return pointer
        return pointer.model_copy(update={"canary": None, "share": 0.0})


@dataclass(frozen=True)
class Revert:
    """Serve a version again, at once; a release under way ends."""

    action: ClassVar[str] = "rollback"
    version: int

    def apply(self, pointer: Pointer) -> Pointer:
        """The canary goes too: a rollback is somebody saying that something is wrong."""
        return _stable(pointer, self.version)


def _stable(pointer: Pointer, version: int) -> Pointer:
    previous = pointer.previous if pointer.stable in (None, version) else pointer.stable
    return pointer.model_copy(
        update={
            "stable": version,
            "previous": None if previous == version else previous,
            "canary": None,
            "share": 0.0,
        }
    )


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
        for version in wanted.wanted - pointer.wanted:
            require_manifest(store, ranker, version)
        moved = wanted.model_copy(
            update={
                "sequence": pointer.sequence + 1,
                "moved_at": datetime.now(UTC),
                "by": by,
                "reason": reason,
            }
        )
        entry = Entry(sequence=moved.sequence, action=change.action, pointer=moved)
        try:
            store.put_json(_entry_key(ranker, moved.sequence), entry.model_dump(mode="json"), if_absent=True)
        except PreconditionFailedError:
            continue  # another mover wrote this entry: look again at what it made
        _carry(store, entry, etag)
        return moved
    raise TryAgainError(f"{ranker}: the pointer is being moved by others", f"gave up after {_TRIES} tries")


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
