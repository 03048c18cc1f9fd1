"""How far a piece of a deployment log verifies: the rules that every follower shares. Nothing is remembered here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reshelve.deployments.pointer import Entry, Pointer
from reshelve.deployments.release_table import Event
from reshelve.deployments.signed_entries import StoredEntry, check_move, check_signed, entry_key, read_stored
from reshelve.errors import DataError
from reshelve.store.objects import ObjectStore, StoreRefusedError
from reshelve.store.signatures import Trust
from reshelve.store.versions import read_manifest


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
    while good:
        pointer = good[-1].entry.pointer
        known = frozenset() if again else pointer.wanted - {pointer.previous}
        found = ((number, held(store, one.entry, pointer.wanted, known)) for number, one in enumerate(good))
        number, why = next(((number, why) for number, why in found if why), (0, ""))
        if not why:
            break
        good, problem = good[:number], why
    return Followed(good, problem, place is not None and bool(good))


def held(
    store: ObjectStore,
    entry: Entry,
    wanted: frozenset[int] | None = None,
    known: frozenset[int | None] | None = None,
) -> str:
    """Why a version may not be released: the gate held it, and no person's signature lets it serve all the same.

    `wanted`: only these versions matter, for what is offered and gone again serves nobody. `known`: of these it has to be
    known what the gate said, where one is offered (whoever vouched knew it); None: of all. Else whoever may delete a
    manifest for a while hides what it says.
    """
    pointer = entry.pointer
    begins = entry.action in (Event.OFFER, Event.VOUCH)
    if not begins or pointer.canary is None or pointer.plan.allow_held:
        return ""
    if wanted is not None and pointer.canary not in wanted:
        return ""
    try:
        manifest, why = read_manifest(store, pointer.ranker, pointer.canary), "is missing"
    except StoreRefusedError:
        return ""  # who may not read versions asks only servers whose agents did
    except DataError as error:
        manifest, why = None, f"cannot be read: {words(error)}"
    offers = f"{entry_key(pointer.ranker, entry.sequence)} offers version {pointer.canary}"
    if manifest is None:
        needed = known is None or (entry.action == Event.OFFER and pointer.canary in known)
        return f"{offers}, whose manifest {why}" if needed else ""
    said = manifest.gate.verdict
    return "" if said == "promote" else f"{offers}, of which the gate said {said}, and no person allows it"


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
