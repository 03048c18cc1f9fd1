"""Entries of the deployment log as they are stored: signed by a mover's key, each with the digest of the one before it.

A signature holds the ranker and the move's number, so without a key nobody makes an entry, moves one to another place, or
puts one into another ranker's log; the chain lets a move stand only on the very log that its mover saw.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError

from reshelve.deployments.legality import contradiction, misfit, roles_for
from reshelve.deployments.pointer import Entry, Pointer
from reshelve.errors import ConfigurationError, DataError
from reshelve.logs import logger
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
    key_name,
    signed,
    signing_key,
    signing_key_path,
    trust,
)

_AT_ONCE = 8
# So far this host's clock may be behind the store's, whose time of a move counts.
_SLOW_CLOCK = timedelta(minutes=15)
_ENDS_SOON = timedelta(days=30)
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
    """The entry, where a mover signed it who may make this move, and it does not contradict itself. Raises DataError."""
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
    if why := contradiction(entry):
        raise DataError(f"{stored.key} is not a legal move", why)
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


def signed_by_person(stored: StoredEntry, trusted: Trust) -> bool:
    """Whether a person's key signed the move; where signatures are off, an unsigned one is anybody's."""
    moved_at = stored.entry.pointer.moved_at
    try:
        check_signature(
            stored.document,
            stored.key,
            trusted,
            (Role.PERSON,),
            Signed.MOVE,
            signed_at=moved_at,
            stored_at=stored.stored_at,
        )
    except DataError:
        return False
    return True


def sign_move(entry: Entry, preferred: Role, *, person: bool = False) -> StoredEntry:
    """The entry as it is to be stored, signed with the key of `preferred`, else of another role that may make the move.

    `person`: only a person's may.

    Raises ConfigurationError where this host has no such key, or only keys whose signature nobody would believe.
    """
    key = _key_for(entry, preferred, frozenset({Role.PERSON}) if person else roles_for(entry))
    document = signed(entry.model_dump(mode="json"), key, Signed.MOVE)
    ranker, body = entry.pointer.ranker, json.dumps(document).encode()
    place = entry_key(ranker, entry.sequence)
    return StoredEntry(place, ranker, entry.sequence, body, datetime.now(UTC) + _SLOW_CLOCK)


def _key_for(entry: Entry, preferred: Role, allowed: frozenset[Role]) -> Ed25519PrivateKey | None:
    """The first key here that may sign the move; None where signatures are off and there is none."""
    trusted, problems = trust(), []
    for role in [preferred, *(role for role in (Role.PERSON, Role.RELEASE) if role is not preferred)]:
        if role not in allowed:
            continue
        try:
            return _good_key(role, entry, trusted)
        except ConfigurationError as error:
            problems.append(error.headline)
            if os.path.exists(signing_key_path(role)):  # noqa: PTH110 - in a folder that is closed to us, it is none
                logger(ranker=entry.pointer.ranker).warning(
                    "a key here cannot sign", role=role.value, problem=error.headline
                )
    if not trusted.required:
        return None
    raise ConfigurationError(
        f"{entry.pointer.ranker}: no private key here may sign {entry.action}",
        "; ".join([*problems, "docs/how-to/keys.md says which host has which key"]),
    )


def _good_key(role: Role, entry: Entry, trusted: Trust) -> Ed25519PrivateKey:
    """A role's private key. Raises ConfigurationError where it cannot be read, or nobody would believe what it signs now."""
    private, now = signing_key(role), datetime.now(UTC)
    public = trusted.keys.get(key_name(private.public_key()))
    if public is None:
        if not trusted.required:
            return private
        raise ConfigurationError(f"{signing_key_path(role)}: its public key is not trusted here")
    if role not in public.roles:
        raise ConfigurationError(
            f"{signing_key_path(role)}: it is trusted as {' or '.join(public.roles)} alone"
        )
    if ended := public.ended(entry.pointer.moved_at or now, now + _SLOW_CLOCK):
        raise ConfigurationError(f"{signing_key_path(role)}: {ended}")
    if public.not_after is not None and public.not_after - now < _ENDS_SOON:
        logger(role=role.value, key=public.name).warning(
            "a key expires soon: docs/how-to/keys.md says how it is replaced",
            not_after=public.not_after.isoformat(),
        )
    return private
