"""What should serve: an append-only log and one pointer per ranker under `deployments/<ranker>/` on S3.

The log is the truth order: a move appends `log/<sequence>.json` (it must not exist), then moves
`pointer.json` by compare-and-swap. A mover killed between the two leaves an entry that the next mover
carries to the pointer before its own change.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from reshelve.deployments.moves import Advance, Approve, Change, Offer, Promote, Revert, Withdraw
from reshelve.deployments.pointer import Entry, Pointer, problems
from reshelve.errors import ConfigurationError, DataError, TryAgainError
from reshelve.names import rankers_in, require_ranker
from reshelve.store.layout import DEPLOYMENTS, deployments_of
from reshelve.store.objects import ObjectStore, PreconditionFailedError
from reshelve.store.versions import require_manifest

__all__ = [
    "Advance",
    "Approve",
    "Change",
    "Entry",
    "MovedError",
    "Offer",
    "Pointer",
    "Promote",
    "Revert",
    "Withdraw",
    "deployed_rankers",
    "entry_at",
    "move_pointer",
    "moved_since",
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


class MovedError(DataError):
    """Somebody asks for a move of a pointer that is not what they saw any more."""


def pointer_key(ranker: str) -> str:
    """The pointer's key on S3."""
    return f"{deployments_of(require_ranker(ranker))}pointer.json"


def _entry_key(ranker: str, sequence: int) -> str:
    return f"{deployments_of(require_ranker(ranker))}log/{sequence:08d}.json"


def deployed_rankers(store: ObjectStore) -> list[str]:
    """Rankers that have anything under `deployments/`, sorted. A folder that is not a valid ranker name is ignored.

    The store's checks lie in a folder with a dot: no stranger's.
    """
    folders = (name for name in store.folders(DEPLOYMENTS) if not name.startswith("."))
    return rankers_in(folders, DEPLOYMENTS)


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
    """What should serve, or None where nothing has been released."""
    found = store.get(pointer_key(ranker))
    return None if found is None else parse_pointer(found.body, ranker)


def read_log(store: ObjectStore, ranker: str) -> list[Entry]:
    """All moves, oldest first."""
    keys = [key for key, _ in store.list(f"{deployments_of(require_ranker(ranker))}log/")]
    return [_entry(store, key) for key in keys]


def read_entry(store: ObjectStore, ranker: str, sequence: int) -> Entry | None:
    """One move by its number, or None where there is none. Raises DataError where it is damaged."""
    key = _entry_key(ranker, sequence)
    found = store.get(key)
    return None if found is None else _parsed(store, key, found.body)


def move_pointer(
    store: ObjectStore, ranker: str, change: Change, *, by: str, reason: str, expected: int | None = None
) -> Pointer:
    """Apply `change` to the newest state, once, and return the state after it.

    A change that changes nothing makes no entry. `expected` is the number of the newest move that `by` has seen: where
    another was made since, the pointer stays as it is (MovedError), unless it is already as asked for. So a try that was
    cut off after its move may ask again with the same number. Raises DataError where a version is not published, TryAgainError
    where the change does not fit the state or movers collide for too long, ConfigurationError without a name.
    """
    if not by:
        raise ConfigurationError("a move of the pointer needs a name", "give a name: --by NAME")
    for _ in range(_TRIES):
        pointer, etag = _settled(store, ranker)
        if expected is not None and pointer.sequence != expected:
            return _nothing_left(store, pointer, change, expected)
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


def moved_since(store: ObjectStore, pointer: Pointer, sequence: int) -> MovedError:
    """The error for whoever saw the pointer at move `sequence`: what was moved since, by whom and why."""
    headline = f"{pointer.ranker}: the pointer has moved since move {sequence}"
    if sequence > pointer.sequence:
        return MovedError(headline, f"it is at move {pointer.sequence}, which is before")
    since = [entry_at(store, pointer.ranker, number) for number in (sequence + 1, pointer.sequence)]
    said = [f"move {e.sequence}: {e.action} by {e.pointer.by}: {e.pointer.reason}" for e in since]
    return MovedError(headline, "; ".join(dict.fromkeys(said)))


def _nothing_left(store: ObjectStore, pointer: Pointer, change: Change, expected: int) -> Pointer:
    """The pointer, where it is already as `change` wants it. Raises MovedError: it is not what was seen at `expected`."""
    with suppress(DataError, TryAgainError):  # it does not even fit any more
        if change.apply(pointer) == pointer:
            return pointer
    raise moved_since(store, pointer, expected)


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
