"""What should serve: an append-only log and one pointer per ranker under `deployments/<ranker>/` on S3.

The log is the truth: a move appends `log/<sequence>.json`, signed and chained (`signed_entries`), which must not exist.
`pointer.json` is a copy of the newest move's state for who looks; a mover that dies before it is written costs nothing.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from reshelve.deployments.moves import Advance, Approve, Change, Offer, Promote, Revert, Withdraw
from reshelve.deployments.permitted import NeedsPersonError
from reshelve.deployments.pointer import Entry, Pointer, problems
from reshelve.deployments.signed_entries import (
    StoredEntry,
    check_signed,
    entry_key,
    log_prefix,
    read_stored,
    sign_move,
)
from reshelve.deployments.verified_log import VerifiedLog, log_of
from reshelve.errors import ConfigurationError, DataError, TryAgainError
from reshelve.logs import logger
from reshelve.names import rankers_in, require_ranker
from reshelve.store.layout import DEPLOYMENTS, deployments_of
from reshelve.store.objects import Object, ObjectStore, PreconditionFailedError
from reshelve.store.roles import Role
from reshelve.store.signatures import trust
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
    "Role",
    "VerifiedLog",
    "Withdraw",
    "deployed_rankers",
    "entry_at",
    "entry_if_valid",
    "log_problem",
    "move_pointer",
    "moved_since",
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
    """What should serve: the newest state that the log proves, or None where nothing has been released.

    What does not verify beyond it is passed over: `log_problem` tells. Raises DataError where nothing verifies.
    """
    log = log_of(store, ranker)
    pointer = log.look()
    if pointer is None:
        log.require_whole()
        if why := pointer_problem(store, log):
            raise DataError(why, "the log has no move at all")
    return pointer


def log_problem(store: ObjectStore, ranker: str) -> str:
    """What is wrong with the log, or with the pointer object beside it; empty where both are as they should be."""
    log = log_of(store, ranker)
    log.look()
    return log.problem or pointer_problem(store, log)


def pointer_problem(store: ObjectStore, log: VerifiedLog) -> str:
    """Why the pointer object is not a state of the log; empty where it is, or lags behind."""
    found = store.get(pointer_key(log.ranker))
    if found is None:
        return ""
    try:
        return contradicted(parse_pointer(found.body, log.ranker), log)
    except DataError as error:
        return error.headline


def contradicted(pointer: Pointer, log: VerifiedLog) -> str:
    """Why a pointer is not believed beside a log that has been looked at; empty where it is older, or the newest."""
    newest = log.pointer or Pointer(ranker=log.ranker)
    if pointer.sequence < newest.sequence or pointer == newest:
        return ""
    return f"{pointer_key(log.ranker)} is not what the log says"


def read_log(store: ObjectStore, ranker: str) -> list[Entry]:
    """All moves, oldest first, as they are stored."""
    keys = [key for key, _ in store.list(log_prefix(ranker))]
    return [_parsed(store, key, store.get(key)) for key in keys]


def read_entry(store: ObjectStore, ranker: str, sequence: int) -> Entry | None:
    """One move by its number, or None where there is none. Raises DataError where it is damaged, or nobody signed it.

    Moves from before the log was signed are read as they are: whoever vouched for the log has vouched for them.
    """
    stored = read_stored(store, ranker, sequence)
    if stored is None:
        return None
    if not stored.is_signed and sequence < log_of(store, ranker).since:
        return stored.entry
    return check_signed(stored, trust())


def move_pointer(
    store: ObjectStore,
    ranker: str,
    change: Change,
    *,
    by: str,
    reason: str,
    expected: int | None = None,
    role: Role = Role.RELEASE,
) -> Pointer:
    """Apply `change` to the newest state, once, and return the state after it.

    A change that changes nothing makes no entry. `expected` is the number of the newest move that `by` has seen: where
    another was made since, the pointer stays as it is (MovedError), unless it is already as asked for. So a try that was
    cut off after its move may ask again with the same number. `role`: whose key signs; where this host does not have it,
    another one signs that may make the move. Raises DataError where a version is not published or the log does not
    verify, TryAgainError where the change does not fit the state or movers collide for too long, ConfigurationError
    without a name, or without a key whose signature everybody believes.
    """
    if not by:
        raise ConfigurationError("a move of the pointer needs a name", "give a name: --by NAME")
    log = log_of(store, ranker)
    for _ in range(_TRIES):
        pointer = _settled(log)
        if expected is not None and pointer.sequence != expected:
            return _nothing_left(store, pointer, change, expected)
        wanted = change.apply(pointer)
        if wanted == pointer:
            return pointer
        new_stable = wanted.wanted & {wanted.stable} - {pointer.stable}
        for version in wanted.wanted - pointer.wanted | new_stable:
            require_manifest(store, ranker, version)  # published, and signed by a trusted key
        moved = next_state(wanted, pointer, by=by, reason=reason)
        try:
            stored = signed_entry(log, moved, change.action, change.evidence, role)
        except ConfigurationError:
            if (log.pointer or pointer).sequence == pointer.sequence:
                raise
            continue  # another thread of this process has moved it meanwhile, and follows the same log
        try:
            store.put(stored.key, stored.body, if_absent=True, content_type="application/json")
        except PreconditionFailedError:
            continue  # another mover wrote this entry: look again at what it made
        log.made(stored)
        carry(store, moved)
        return moved
    raise TryAgainError(f"{ranker}: the pointer is being moved by others", f"gave up after {_TRIES} tries")


def next_state(wanted: Pointer, pointer: Pointer, *, by: str, reason: str) -> Pointer:
    """`wanted` as the move after `pointer`."""
    said = {"moved_at": datetime.now(UTC), "by": by, "reason": reason}
    return wanted.model_copy(update={"sequence": pointer.sequence + 1, **said})


def signed_entry(
    log: VerifiedLog, moved: Pointer, action: str, evidence: dict[str, Any], role: Role
) -> StoredEntry:
    """The entry of a move, which is proven to be followed before anybody sees it: another one would block the log.

    A version that may come nearer to customers by a person's word alone takes a person's key. Raises ConfigurationError
    where there is none, or nobody would follow the move.
    """
    entry = Entry(sequence=moved.sequence, action=action, pointer=moved, evidence=evidence, before=log.digest)
    stored = sign_move(entry, role)
    try:
        try:
            log.require_followed(stored)
        except NeedsPersonError as error:
            stored = _signed_by_person(entry, role, error.headline)
            log.require_followed(stored)
    except DataError as error:
        raise ConfigurationError(
            f"{log.ranker}: nobody would follow this move: {error.headline}", error.detail
        ) from error
    return stored


def _signed_by_person(entry: Entry, role: Role, why: str) -> StoredEntry:
    try:
        stored = sign_move(entry, role, person=True)
    except ConfigurationError as error:
        raise ConfigurationError(f"{error.headline}: {why}", error.detail) from error
    logger(ranker=entry.pointer.ranker).warning("a person's key signs this move", move=entry.action, why=why)
    return stored


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


def entry_at(store: ObjectStore, ranker: str, sequence: int) -> Entry:
    """One move, by its number. Raises DataError where there is none."""
    found = read_entry(store, ranker, sequence)
    if found is None:
        raise DataError(f"{store.uri(entry_key(ranker, sequence))} is missing", "entries are never deleted")
    return found


def entry_if_valid(store: ObjectStore, ranker: str, sequence: int) -> Entry | None:
    """One move by its number; None where there is none, or what is there is none of ours: for who can do without."""
    try:
        return read_entry(store, ranker, sequence)
    except DataError:
        return None


def step_began(store: ObjectStore, pointer: Pointer) -> int:
    """The number of the log entry that brought the release to the step where it is."""
    began = pointer.sequence
    while began > 1:
        entry = entry_if_valid(store, pointer.ranker, began - 1)
        if entry is None:
            break
        before = entry.pointer
        if (before.canary, before.state, before.step) != (pointer.canary, pointer.state, pointer.step):
            break
        began -= 1
    return began


def settle(store: ObjectStore, ranker: str) -> Pointer | None:
    """Carry an entry left by a killed mover to the pointer; the state after it, or None without any move.

    Raises DataError where the log does not verify: nobody moves on from there.
    """
    pointer = _settled(log_of(store, ranker))
    if not pointer.sequence:
        return None
    carry(store, pointer)
    return pointer


def _settled(log: VerifiedLog) -> Pointer:
    """The newest state, from which the next move may be made."""
    pointer = log.look()
    log.require_whole()
    return pointer or Pointer(ranker=log.ranker)


def carry(store: ObjectStore, pointer: Pointer) -> None:
    """Bring the pointer object to a state of the log. Losing the swap is no failure: whoever won carried this, or a later one."""
    key, document = pointer_key(pointer.ranker), pointer.model_dump(mode="json")
    found = store.get(key)
    try:
        if found is None:
            store.put_json(key, document, if_absent=True)
            return
        with suppress(DataError):  # damaged: written anew
            there = parse_pointer(found.body, pointer.ranker)
            later = there.sequence > pointer.sequence
            if there == pointer or (later and store.exists(entry_key(pointer.ranker, there.sequence))):
                return
        store.put_json(key, document, if_match=found.etag)
    except PreconditionFailedError:
        return


def _parsed(store: ObjectStore, key: str, found: Object | None) -> Entry:
    try:
        return Entry.model_validate_json(b"" if found is None else found.body)
    except ValidationError as error:
        raise DataError(
            f"{store.uri(key)} is damaged", "an entry of the deployment log is never changed"
        ) from error
