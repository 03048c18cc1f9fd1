"""What should serve: an append-only log and one pointer per ranker under `deployments/<ranker>/` on S3.

The log is the truth order: a move appends `log/<sequence>.json` (it must not exist), then moves
`pointer.json` by compare-and-swap. A mover killed between the two leaves an entry that the next mover
carries to the pointer before its own change.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from reshelve.errors import ConfigurationError, DataError, TryAgainError
from reshelve.store.changes import (
    Advance,
    Approve,
    Change,
    Offer,
    Promote,
    Revert,
    Withdraw,
)
from reshelve.store.objects import ObjectStore, PreconditionFailedError
from reshelve.store.pointer import Entry, Pointer, problems
from reshelve.store.versions import require_manifest

__all__ = [
    "Advance",
    "Approve",
    "Change",
    "Entry",
    "Offer",
    "Pointer",
    "Promote",
    "Revert",
    "Withdraw",
    "deployed_rankers",
    "entry_at",
    "move_pointer",
    "newest",
    "parse_pointer",
    "pointer_key",
    "problems",
    "read_entry",
    "read_log",
    "read_pointer",
    "settle",
    "step_began",
]

_TRIES = 20


def pointer_key(ranker: str) -> str:
    """The pointer's key on S3."""
    return f"deployments/{ranker}/pointer.json"


def _entry_key(ranker: str, sequence: int) -> str:
    return f"deployments/{ranker}/log/{sequence:08d}.json"


def deployed_rankers(store: ObjectStore) -> list[str]:
    """Rankers that have anything under `deployments/`, sorted. No ranker's name begins with a dot: checks lie there."""
    return [name for name in store.folders("deployments/") if not name.startswith(".")]


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


def read_entry(store: ObjectStore, ranker: str, sequence: int) -> Entry | None:
    """One move by its number, or None where there is none. Raises DataError where it is damaged."""
    key = _entry_key(ranker, sequence)
    found = store.get(key)
    return None if found is None else _parsed(store, key, found.body)


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


def entry_at(store: ObjectStore, ranker: str, sequence: int) -> Entry:
    """One move, by its number. Raises DataError where there is none."""
    return _entry(store, _entry_key(ranker, sequence))


def step_began(store: ObjectStore, pointer: Pointer) -> int:
    """The number of the log entry that brought the release to the step where it is."""
    began = pointer.sequence
    while began > 1:
        before = _entry(store, _entry_key(pointer.ranker, began - 1)).pointer
        if (before.canary, before.state, before.step) != (pointer.canary, pointer.state, pointer.step):
            break
        began -= 1
    return began


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
    return _parsed(store, key, b"" if found is None else found.body)


def _parsed(store: ObjectStore, key: str, body: bytes) -> Entry:
    try:
        return Entry.model_validate_json(body)
    except ValidationError as error:
        raise DataError(
            f"{store.uri(key)} is damaged", "an entry of the deployment log is never changed"
        ) from error
