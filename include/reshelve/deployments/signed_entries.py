"""Entries of the deployment log as they are stored: signed by a mover's key, each with the digest of the one before it.

A signature holds the ranker and the move's number, so without a key nobody makes an entry, moves one to another place, or
puts one into another ranker's log; the chain lets a move stand only on the very log that its mover saw.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from reshelve.deployments.legality import misfit, roles_for
from reshelve.deployments.pointer import Entry, Pointer
from reshelve.errors import ConfigurationError, DataError
from reshelve.names import require_ranker
from reshelve.store.json_documents import json_object
from reshelve.store.layout import deployments_of
from reshelve.store.objects import ObjectStore
from reshelve.store.roles import Role
from reshelve.store.signatures import (
    SIGNATURE,
    Signed,
    Trust,
    check_signature,
    signatures_required,
    signed,
    signing_key,
    signing_key_path,
)

_AT_ONCE = 8
_DIGITS = 8


@dataclass(frozen=True)
class StoredEntry:
    """One object of the log, believed by nobody yet."""

    key: str
    ranker: str
    sequence: int
    body: bytes
    stored_at: datetime
    etag: str = ""

    @cached_property
    def digest(self) -> str:
        """What the next entry says of it."""
        return hashlib.sha256(self.body).hexdigest()

    @cached_property
    def document(self) -> dict[str, Any]:
        """Its JSON. Raises DataError."""
        try:
            return json_object(self.body)
        except ValueError as error:
            raise DataError(f"{self.key} is damaged", f"no JSON object: {error}") from error

    @cached_property
    def entry(self) -> Entry:
        """What it says. Raises DataError where it is damaged, or another place's."""
        try:
            found = Entry.model_validate(self.document)
        except ValidationError as error:
            raise DataError(
                f"{self.key} is damaged", "an entry of the deployment log is never changed"
            ) from error
        said = (found.pointer.ranker, found.sequence, found.pointer.sequence)
        if said != (self.ranker, self.sequence, self.sequence):
            raise DataError(
                f"{self.key} is damaged", f"it says that it is move {found.sequence} of {said[0]}"
            )
        return found

    @property
    def is_signed(self) -> bool:
        """Whether it carries a signature, right or wrong."""
        return SIGNATURE in self.document


def entry_key(ranker: str, sequence: int) -> str:
    """A move's key on S3."""
    return f"{log_prefix(ranker)}{sequence:0{_DIGITS}d}.json"


def log_prefix(ranker: str) -> str:
    """Where a ranker's log is."""
    return f"{deployments_of(require_ranker(ranker))}log/"


def log_numbers(store: ObjectStore, ranker: str) -> list[int]:
    """The numbers of all entries that there are, ascending; other names are none of ours."""
    prefix = log_prefix(ranker)
    names = (key[len(prefix) :].removesuffix(".json") for key, _ in store.list(prefix))
    return sorted(int(name) for name in names if len(name) == _DIGITS and name.isascii() and name.isdecimal())


def claims_signature(stored: StoredEntry) -> bool:
    """Whether it carries a signature, right or wrong; what is damaged carries none."""
    try:
        return stored.is_signed
    except DataError:
        return False


def read_stored(store: ObjectStore, ranker: str, sequence: int) -> StoredEntry | None:
    """One entry, or None where there is none."""
    key = entry_key(ranker, sequence)
    found = store.get(key)
    return (
        None if found is None else StoredEntry(key, ranker, sequence, found.body, found.stored_at, found.etag)
    )


def read_many(store: ObjectStore, ranker: str, numbers: Iterable[int]) -> list[StoredEntry]:
    """Those of the numbers that are there, in order, some at a time."""
    asked = list(numbers)
    if len(asked) == 1:
        one = read_stored(store, ranker, asked[0])
        return [] if one is None else [one]
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="log") as pool:
        found = list(pool.map(lambda number: read_stored(store, ranker, number), asked))
    return [entry for entry in found if entry is not None]


def check_signed(stored: StoredEntry, trusted: Trust) -> Entry:
    """The entry, where a mover signed it who may make this move. Raises DataError."""
    entry = stored.entry
    check_signature(
        stored.document,
        stored.key,
        trusted,
        roles_for(entry),
        Signed.MOVE,
        signed_at=entry.pointer.moved_at,
        stored_at=stored.stored_at,
    )
    return entry


def check_move(stored: StoredEntry, before: Pointer, digest: str, trusted: Trust) -> Entry:
    """The entry, where it may follow the state `before`, whose entry has `digest`. Raises DataError saying why not."""
    entry = check_signed(stored, trusted)
    if entry.before != digest and (entry.before or trusted.required):
        raise DataError(
            f"{stored.key} does not continue the log", "the entry before it is not the one that its mover saw"
        )
    if why := misfit(before, entry):
        raise DataError(f"{stored.key} is not a legal move", why)
    return entry


def sign_move(entry: Entry, preferred: Role) -> StoredEntry:
    """The entry as it is to be stored, signed with the key of `preferred`, else of another role that may make the move.

    Raises ConfigurationError where this host has no such key.
    """
    allowed = roles_for(entry)
    roles = [preferred, *(role for role in (Role.PERSON, Role.RELEASE) if role is not preferred)]
    there = [role for role in roles if role in allowed and signing_key_path(role).is_file()]
    if not there and signatures_required():
        wanted = " or ".join(str(signing_key_path(role)) for role in roles if role in allowed)
        raise ConfigurationError(
            f"{entry.pointer.ranker}: no private key here may sign {entry.action}",
            f"expected {wanted}; docs/how-to/keys.md says which host has which key",
        )
    key = signing_key(there[0]) if there else None
    document = signed(entry.model_dump(mode="json"), key, Signed.MOVE)
    ranker, body = entry.pointer.ranker, json.dumps(document).encode()
    return StoredEntry(entry_key(ranker, entry.sequence), ranker, entry.sequence, body, datetime.now(UTC))
