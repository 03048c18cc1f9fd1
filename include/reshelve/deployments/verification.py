"""How far a piece of a deployment log verifies: the rules that every follower shares. Nothing is remembered here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reshelve.deployments.permitted import Permits
from reshelve.deployments.pointer import Pointer
from reshelve.deployments.release_table import Event
from reshelve.deployments.signed_entries import StoredEntry, check_move, check_signed, entry_key, read_stored
from reshelve.errors import DataError
from reshelve.store.objects import ObjectStore
from reshelve.store.signatures import Trust


@dataclass(frozen=True)
class Followed:
    """What verified, in order, and why the next one did not; `vouched`: it begins with a person's word on all before."""

    entries: Sequence[StoredEntry] = ()
    problem: str = ""
    vouched: bool = False


def verify(
    store: ObjectStore,
    entries: Sequence[StoredEntry],
    trusted: Trust,
    before: Pointer | None,
    digest: str = "",
    *,
    again: bool = False,
) -> Followed:
    """As many of the entries as verify, from the newest one on by which a person vouches for the log.

    `before`, `digest`: the state and the entry that they follow; None: the first one has to stand by its signature alone.
    `again`: they were followed before, when the manifests of what they offer could be read.
    """
    place = _newest_vouch(entries, trusted, digest)
    good = [] if place is None else [entries[place]]
    problem = ""
    for stored in entries[0 if place is None else place + 1 :]:
        try:
            if good:
                check_move(stored, good[-1].entry.pointer, good[-1].digest, trusted)
            elif before is None:
                check_signed(stored, trusted)
            else:
                check_move(stored, before, digest, trusted)
        except DataError as error:
            problem = words(error)
            break
        good.append(stored)
    permits = Permits(store, trusted)
    begins_anywhere = before is None and place is None and not again
    if good and begins_anywhere and (unseen := permits.refusal_of_state(good[0])):
        good, problem = [], unseen.why
    while good:
        pointer = good[-1].entry.pointer
        known = frozenset() if again else pointer.wanted - {pointer.previous}
        near = pointer.wanted | pointer.way_back  # what served once a rollback may choose again
        found = (
            (number, permits.refusal(one, wanted=near, known=known, log=good))
            for number, one in enumerate(good)
        )
        refused = next(((number, refusal.why) for number, refusal in found if refusal), None)
        if refused is None:
            break
        good, problem = good[: refused[0]], refused[1]
    return Followed(good, problem, place is not None and bool(good))


def wrong_after(last: StoredEntry, store: ObjectStore, trusted: Trust) -> str:
    """What is wrong with the entry after the last one that verified."""
    stored = read_stored(store, last.ranker, last.sequence + 1)
    if stored is None:
        return f"{entry_key(last.ranker, last.sequence + 1)} is missing"
    try:
        check_move(stored, last.entry.pointer, last.digest, trusted)
    except DataError as error:
        return words(error)
    return ""


def words(error: DataError) -> str:
    """An error in one line."""
    return f"{error.headline}: {error.detail}" if error.detail else error.headline


def _newest_vouch(entries: Sequence[StoredEntry], trusted: Trust, digest: str) -> int | None:
    """The place of the newest entry by which a person vouches for what was before it."""
    for number in range(len(entries) - 1, -1, -1):
        try:
            if entries[number].entry.action != Event.VOUCH:
                continue
            vouch = check_signed(entries[number], trusted)
        except DataError:
            continue
        before = entries[number - 1].digest if number else digest
        if not before or vouch.before == before:
            return number
    return None


def unbroken(entries: Sequence[StoredEntry]) -> list[StoredEntry]:
    """The last ones without a gap between them."""
    last = entries[-1].sequence if entries else 0
    count = next(
        (n for n, stored in enumerate(reversed(entries)) if stored.sequence != last - n), len(entries)
    )
    return list(entries[len(entries) - count :])


def unbroken_from(entries: Sequence[StoredEntry], first: int) -> list[StoredEntry]:
    """The first ones without a gap between them, from number `first` on."""
    found: list[StoredEntry] = []
    for stored in entries:
        if stored.sequence != first + len(found):
            break
        found.append(stored)
    return found
