"""A person vouches for a log: one more entry, from which on everybody verifies, and says nothing of what was before.

It is how a log from before moves were signed is taken over, and how one goes on after a key in it was revoked or somebody
wrote into it what verifies nowhere. Never done by itself: whoever vouches has looked at the log.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime

from reshelve.deployments.deployment_log import carry, deployed_rankers, log_of, next_state
from reshelve.deployments.permitted import Permits
from reshelve.deployments.pointer import Entry, Pointer
from reshelve.deployments.release_table import Event
from reshelve.deployments.signed_entries import (
    StoredEntry,
    check_signed,
    claims_signature,
    entry_key,
    log_numbers,
    read_many,
    read_stored,
    sign_move,
)
from reshelve.errors import ConfigurationError, DataError, TryAgainError
from reshelve.logs import logger
from reshelve.store.layout import deployments_of
from reshelve.store.objects import ObjectStore, PreconditionFailedError
from reshelve.store.roles import Role
from reshelve.store.signatures import trust
from reshelve.store.versions import require_manifest

_AT_ONCE = 512


class HeldError(ConfigurationError):
    """The release under way is of a version that may not serve, or not by its steps, by anybody's vouching."""


def vouch(store: ObjectStore, ranker: str, move: int, *, by: str, reason: str) -> Pointer:
    """Vouch for the log up to number `move`; what lies beyond it is set aside. The state after it, which is that of `move`.

    Raises DataError where there is no such move, or later ones are followed already, ConfigurationError where this host
    has no person's key that counts, or the release under way is of a version that the gate held, or has too few steps.
    """
    if not by:
        raise ConfigurationError("whoever vouches for a log needs a name", "give a name: --by NAME")
    log = log_of(store, ranker)
    followed = log.look()
    beyond = [number for number in log_numbers(store, ranker) if number > move]
    if followed is not None and move < followed.sequence:
        raise DataError(
            f"{ranker}: move {followed.sequence} is followed already",
            f"vouch for it or a later one, not for {move}; what it chose is changed by a move: rollback, withdraw",
        )
    last = read_stored(store, ranker, move)
    if last is None:
        raise DataError(f"{ranker}: there is no move {move}", f"{entry_key(ranker, move)} does not exist")
    pointer = last.entry.pointer
    first = 1 if followed is None else log.since if log.problem else followed.sequence + 1
    moved = next_state(pointer, pointer, by=by, reason=reason or f"the log up to move {move}")
    entry = Entry(
        sequence=moved.sequence,
        action=Event.VOUCH,
        pointer=moved,
        evidence={"first": first, "last": move, "sha256": _digest(store, ranker, first, move)},
        before=last.digest,
    )
    followed_already = move == (followed and followed.sequence)
    asked = entry if followed_already else _without_leave(entry)
    if refusal := Permits(store, trust()).refusal_of_offer(asked, person=followed_already):
        raise HeldError(
            f"{ranker}: {refusal.why}", "vouch for the move before its offer, and release it again"
        )
    if followed is not None:
        _require_gate_promoted(store, pointer, pointer.way_back - followed.way_back)
    stored = sign_move(entry, Role.PERSON)
    try:
        check_signed(stored, trust())
    except DataError as error:
        raise ConfigurationError(
            f"{ranker}: nobody would believe this: {error.headline}", error.detail
        ) from error
    if (again := log.look()) != followed:
        raise TryAgainError(
            f"{ranker}: the log has moved meanwhile, to move {again.sequence if again else 0}",
            f"look at it again, then vouch: reshelve log --ranker {ranker}",
        )
    _set_aside(store, ranker, beyond)
    try:
        store.put(stored.key, stored.body, if_absent=True, content_type="application/json")
    except PreconditionFailedError as error:
        raise TryAgainError(f"{ranker}: somebody else has written move {moved.sequence} meanwhile") from error
    log.look()
    log.require_whole()
    carry(store, moved)
    return moved


def _require_gate_promoted(store: ObjectStore, pointer: Pointer, versions: frozenset[int]) -> None:
    """Raises HeldError where a version has served, by moves that nobody has believed yet, of which the gate did not say promote."""
    for version in sorted(versions):
        said = require_manifest(store, pointer.ranker, version).gate.verdict
        if said != "promote":
            raise HeldError(
                f"{pointer.ranker}: version {version} is stable in these moves, and the gate said {said}",
                "vouch for the move before its offer, and release it again",
            )


def _without_leave(entry: Entry) -> Entry:
    """To vouch is no way to let serve what the gate held: leave that nobody has believed yet counts for nothing."""
    plan = entry.pointer.plan.model_copy(update={"allow_held": False})
    return entry.model_copy(update={"pointer": entry.pointer.model_copy(update={"plan": plan})})


def vouch_for_unsigned(store: ObjectStore, *, by: str, reason: str) -> dict[str, int]:
    """Vouch for every log that has no signed move at all; ranker → the move that it was vouched up to.

    A release under way of a version that the gate held ends with it. A log that cannot be vouched for is logged, with what
    a person types, and keeps no other one from it. Raises TryAgainError where the store is away.
    """
    found = {}
    for ranker in deployed_rankers(store):
        numbers = log_numbers(store, ranker)
        entries = read_many(store, ranker, numbers[-_AT_ONCE:])
        if not entries or any(claims_signature(stored) for stored in entries):
            continue
        try:
            found[ranker] = _vouch_for(store, ranker, entries, by, reason)
        except (DataError, ConfigurationError) as error:
            logger(ranker=ranker).error(
                "the log from before moves were signed is not followed: a person has to vouch for it",
                problem=str(error),
                then=f"reshelve log --ranker {ranker}; reshelve vouch --ranker {ranker} --move N --by NAME --reason …",
            )
            continue
        logger(ranker=ranker).info("vouched for the log from before moves were signed", moves=found[ranker])
    return found


def _vouch_for(store: ObjectStore, ranker: str, entries: Sequence[StoredEntry], by: str, reason: str) -> int:
    last = entries[-1].sequence
    try:
        vouch(store, ranker, last, by=by, reason=reason)
    except HeldError as error:
        offers = [one.sequence for one in entries if one.entry.action == Event.OFFER]
        if not offers or offers[-1] == 1:
            raise
        logger(ranker=ranker).warning("a release of a version that the gate held ends", problem=str(error))
        last = offers[-1] - 1
        vouch(store, ranker, last, by=by, reason=reason)
    return last


def _digest(store: ObjectStore, ranker: str, first: int, last: int) -> str:
    """sha256 of the digests of these moves, one after the other: so that they are not changed afterwards unseen."""
    whole = hashlib.sha256()
    for start in range(first, last + 1, _AT_ONCE):
        for stored in read_many(store, ranker, range(start, min(start + _AT_ONCE, last + 1))):
            whole.update(bytes.fromhex(stored.digest))
    return whole.hexdigest()


def _set_aside(store: ObjectStore, ranker: str, numbers: Sequence[int]) -> None:
    """These entries are kept for who wants to know what was tried, and are in the log's way no more."""
    at = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    for number in numbers:
        stored = read_stored(store, ranker, number)
        if stored is not None:
            store.put(f"{deployments_of(ranker)}set-aside/{at}-{number:08d}.json", stored.body)
            store.delete([stored.key])
            logger(ranker=ranker).warning("set an entry aside", move=number)
