"""Whether a version may come nearer to customers: what its gate said of it, and the steps that it was made to be released by.

Both stand in its signed manifest, so they hold whoever makes the move and whatever plan an offer has. A person's word is
needed for anything else: their signature on the offer, or on the move that makes the version stable.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat

from reshelve.deployments.pointer import Entry
from reshelve.deployments.release_table import Event, Plan
from reshelve.deployments.signed_entries import (
    StoredEntry,
    check_signed,
    entry_key,
    read_many,
    signed_by_person,
)
from reshelve.errors import DataError
from reshelve.store.manifest import Manifest, ReleaseSteps
from reshelve.store.objects import ObjectStore, StoreRefusedError
from reshelve.store.signatures import Trust
from reshelve.store.versions import read_manifest

_LOOKS = (8, 64, 512)  # moves that are read at once for the offer of a version: most were made a moment ago


@dataclass(frozen=True)
class Refusal:
    """Why a move is not followed; `person`: with a person's signature it would be."""

    why: str
    person: bool = False


class NeedsPersonError(DataError):
    """A move that only a person's key may sign."""


class Permits:
    """What the versions of a log ask of their releases; each manifest is read once."""

    def __init__(self, store: ObjectStore, trusted: Trust) -> None:
        self._store, self._trusted = store, trusted
        self._read: dict[int, Manifest | str] = {}

    def refusal(
        self,
        stored: StoredEntry,
        *,
        wanted: frozenset[int] | None = None,
        known: frozenset[int | None] | None = None,
        log: Sequence[StoredEntry] = (),
    ) -> Refusal | None:
        """Why a signed move may not bring its version nearer to customers; None where it may, or is no such move.

        `wanted`: only these versions matter, for what is offered and gone again serves nobody. `known`: of these it has
        to be known what the manifest says (whoever vouched knew it); None: of all. Else whoever may delete a manifest
        for a while hides what it says. `log`: moves that were read already.
        """
        entry = stored.entry
        if entry.action in (Event.OFFER, Event.VOUCH):
            person = signed_by_person(stored, self._trusted)
            return self.refusal_of_offer(entry, person=person, wanted=wanted, known=known)
        version = entry.pointer.stable
        if entry.action not in (Event.PROMOTE, Event.ROLLBACK) or version is None:
            return None
        if wanted is not None and version not in wanted:
            return None
        manifest, where = self._manifest(entry, version), entry_key(entry.pointer.ranker, entry.sequence)
        if isinstance(manifest, str):
            needed = manifest and (known is None or version in known)
            return Refusal(f"{where} makes version {version} stable, {manifest}") if needed else None
        if signed_by_person(stored, self._trusted):
            return None
        why = self._without_leave(stored, version, manifest, log)
        return Refusal(f"{where} makes version {version} stable: {why}", person=True) if why else None

    def refusal_of_state(self, stored: StoredEntry) -> Refusal | None:
        """Why what a move leaves stable, or being released, has no leave for it: for who has not seen how it came there."""
        pointer = stored.entry.pointer
        for version in (pointer.stable, pointer.canary):
            manifest = "" if version is None else self._manifest(stored.entry, version)
            if version is None or isinstance(manifest, str):
                continue  # what is lost keeps nobody from rolling back
            if why := self._without_leave(stored, version, manifest, ()):
                where = entry_key(pointer.ranker, stored.sequence)
                return Refusal(f"{where} is a state in which version {version} serves: {why}")
        return None

    def refusal_of_offer(
        self,
        entry: Entry,
        *,
        person: bool,
        wanted: frozenset[int] | None = None,
        known: frozenset[int | None] | None = None,
    ) -> Refusal | None:
        """Why a version may not be released as an offer, or a vouching, says; `person`: a person's signature allows its plan."""
        pointer = entry.pointer
        if pointer.canary is None or (wanted is not None and pointer.canary not in wanted):
            return None
        if pointer.plan.allow_held and person:
            return None
        manifest = self._manifest(entry, pointer.canary)
        offers = f"{entry_key(pointer.ranker, entry.sequence)} offers version {pointer.canary}"
        if isinstance(manifest, str):
            needed = known is None or (entry.action == Event.OFFER and pointer.canary in known)
            return Refusal(f"{offers}, {manifest}") if manifest and needed else None
        said = manifest.gate.verdict
        if said != "promote" and not pointer.plan.allow_held:
            return Refusal(f"{offers}, of which the gate said {said}, and no person allows it")
        if not person and (less := left_out(manifest.release, pointer.plan)):
            return Refusal(
                f"{offers} without {less}, which it was published to have, and no person allows it",
                person=True,
            )
        return None

    def _without_leave(
        self, stored: StoredEntry, version: int, manifest: Manifest, log: Sequence[StoredEntry]
    ) -> str:
        """Why a version has no leave to serve: its newest offer before a move decides. Empty where it has, or needs none.

        A person who vouched for a log in which it had been stable has taken that over.
        """
        said = manifest.gate.verdict
        if said == "promote" and not left_out(manifest.release, Plan()):
            return ""
        for one in self._before(stored, log):
            try:
                entry = check_signed(one, self._trusted)
            except DataError:
                continue  # it proves nothing
            pointer = entry.pointer
            if entry.action == Event.VOUCH and version in pointer.way_back:
                return ""
            if entry.action in (Event.OFFER, Event.VOUCH) and pointer.canary == version:
                refusal = self.refusal(one)
                return refusal.why if refusal else ""
        return f"the gate said {said}, and no offer of it is signed"

    def _before(self, stored: StoredEntry, log: Sequence[StoredEntry]) -> Iterator[StoredEntry]:
        """The moves before one, the newest first."""
        number = stored.sequence
        for one in reversed(log):
            if one.sequence == number - 1:
                yield one
                number -= 1
        looks = chain(_LOOKS, repeat(_LOOKS[-1]))
        while number > 1:
            first = max(1, number - next(looks))
            yield from reversed(read_many(self._store, stored.ranker, range(first, number)))
            number = first

    def _manifest(self, entry: Entry, version: int) -> Manifest | str:
        """A version's manifest, or in words why there is none; empty for who may not read versions: they ask only servers whose agents did."""
        if version not in self._read:
            found: Manifest | str | None
            try:
                found = read_manifest(self._store, entry.pointer.ranker, version)
            except StoreRefusedError:
                found = ""
            except DataError as error:
                detail = f": {error.detail}" if error.detail else ""
                found = f"whose manifest cannot be read: {error.headline}{detail}"
            self._read[version] = "whose manifest is missing" if found is None else found
        return self._read[version]


def left_out(asked: ReleaseSteps | None, plan: Plan) -> str:
    """What a plan leaves out of the steps that a version was published to have, in words; empty: nothing.

    Of a canary every step has to be there, with no more customers than it was to have.
    """
    if asked is None:  # from before manifests said so
        return ""
    wide = [n for n, share in enumerate(asked.shares) if n >= len(plan.shares) or plan.shares[n] > share]
    shares = ", ".join(f"{share:g}" for share in asked.shares)
    missing = {
        "the shadow": asked.shadow and not plan.shadow,
        "the wait for the index": asked.index and not plan.index,
        f"the canary ({shares})": bool(wide),
        "a person's approval": asked.approval and not plan.approval,
        "another person's approval": asked.another_person and not plan.another_person,
    }
    return " and ".join(words for words, is_missing in missing.items() if is_missing)
