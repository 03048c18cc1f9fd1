"""The whole log, for who wants to know what is in it: every entry with what is wrong with it. Nothing is followed by that."""

from __future__ import annotations

import hashlib

from reshelve.deployments.legality import event_of
from reshelve.deployments.pointer import Entry, Pointer, problems
from reshelve.deployments.release_table import Event
from reshelve.deployments.signed_entries import StoredEntry, check_move, check_signed, log_numbers, read_many
from reshelve.deployments.verification import words
from reshelve.deployments.verified_log import log_of
from reshelve.errors import DataError
from reshelve.store.objects import ObjectStore
from reshelve.store.signatures import Trust, trust


def audited(store: ObjectStore, ranker: str) -> tuple[list[Entry], list[str]]:
    """All entries that can be read, oldest first, and what is wrong with the log, each with the number of its move.

    Entries that a person has vouched for are held against the table alone, and against what was vouched for.
    """
    stored = read_many(store, ranker, log_numbers(store, ranker))
    entries, wrong = [], []
    for one in stored:
        try:
            if event_of(one.entry) is None:
                raise DataError(f"{one.key}: {one.entry.action!r} is no move that is known here")
            entries.append(one.entry)
        except DataError as error:
            wrong.append(f"entry {one.sequence}: {words(error)}")
    found = [*wrong, *problems(entries), *_unbelieved(stored, trust())]
    log = log_of(store, ranker)
    log.look()
    if log.problem and not any(
        log.problem in said for said in found
    ):  # a move that nobody may make, well signed
        found.append(log.problem)
    return entries, found


def _unbelieved(stored: list[StoredEntry], trusted: Trust) -> list[str]:
    """What does not verify, and what was changed since a person vouched for it."""
    vouches = [one.entry for one in stored if _vouches(one, trusted)]
    spans = [(vouch.evidence.get("first", 1), vouch.evidence.get("last", 0)) for vouch in vouches]
    found = [said for vouch in vouches for said in _changed(stored, vouch)]
    before: StoredEntry | None = None
    for one in stored:
        if not any(first <= one.sequence <= last for first, last in spans):
            try:
                if before is not None:
                    check_move(one, before.entry.pointer, before.digest, trusted)
                elif one.sequence == 1:
                    check_move(one, Pointer(ranker=one.ranker), "", trusted)
                else:
                    check_signed(one, trusted)
            except DataError as error:
                found.append(f"entry {one.sequence}: {words(error)}")
        before = one
    return found


def _vouches(one: StoredEntry, trusted: Trust) -> bool:
    try:
        return one.entry.action == Event.VOUCH and bool(check_signed(one, trusted))
    except DataError:
        return False


def _changed(stored: list[StoredEntry], vouch: Entry) -> list[str]:
    said, whole = vouch.evidence, hashlib.sha256()
    if "sha256" not in said:
        return []
    for one in stored:
        if said["first"] <= one.sequence <= said["last"]:
            whole.update(bytes.fromhex(one.digest))
    if whole.hexdigest() == said["sha256"]:
        return []
    return [f"moves {said['first']} to {said['last']} were changed after somebody vouched for them"]
