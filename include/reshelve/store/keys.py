"""What the `keys` verbs and the platform do with keys."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from reshelve.errors import ConfigurationError, DataError
from reshelve.logs import logger
from reshelve.names import rankers_in
from reshelve.store import signatures
from reshelve.store.layout import MODELS
from reshelve.store.objects import ObjectStore, object_store
from reshelve.store.roles import Role
from reshelve.store.trusted_keys import read_all_trusted
from reshelve.store.versions import sign_again


def make(
    *,
    if_missing: bool,
    roles: Sequence[Role] = tuple(Role),
    name: str = "",
    days: int | None = None,
) -> dict[str, Any]:
    """Make the key pairs of `roles`; `made` names those that were made.

    `if_missing` keeps what there is, and makes none for a role whose public key is trusted already: its private key is kept
    elsewhere. `days`: how long their signatures count. Raises ConfigurationError where a key is there already.
    """
    now = datetime.now(UTC)
    not_after = None if days is None else now + timedelta(days=days)
    elsewhere = trusted_roles()
    there = [role for role in roles if signatures.signing_key_path(role).exists()]
    if there and not if_missing:
        signatures.make_key_pair(there[0])  # which says that it is there, and makes none
    made = [role for role in roles if role not in there and not (if_missing and role in elsewhere)]
    for role in made:
        key = signatures.make_key_pair(role, name, not_after)
        private = str(signatures.signing_key_path(role))
        logger(key=key).info("made a key pair", role=role.value, private=private)
    return {"made": [role.value for role in made], **describe()}


def trusted_roles(*, of_one: bool = False) -> set[Role]:
    """The roles of all trusted keys that have not ended; `of_one`: of keys that have one role alone.

    Raises ConfigurationError for a file that is no trusted key: it may be the one of a role that seems to have none.
    """
    trusted, now = read_all_trusted(signatures.trusted_keys_path()), datetime.now(UTC)
    counted = [key for key in trusted.values() if not key.ended(now) and not (of_one and len(key.roles) > 1)]
    return {role for key in counted for role in key.roles}


def describe() -> dict[str, Any]:
    """Per role the name of the key that signs here (None without one), and every key that is trusted."""
    return {
        "signatures": "required" if signatures.signatures_required() else "off",
        "signs": {role.value: _name_of(role) for role in Role},
        "private": str(signatures.signing_key_path().parent),
        "trusted": [key.describe() for key in signatures.trust().keys.values()],
        "directory": str(signatures.trusted_keys_path()),
    }


def holder(role: Role = Role.PERSON) -> str:
    """Whose key of a role is here, by the name that the trusted keys give it; empty: nobody's that has a name."""
    try:
        name = signatures.key_name(signatures.signing_key(role).public_key())
        key = signatures.trust().keys.get(name)
    except ConfigurationError:  # whoever signs with it is told
        return ""
    return key.name if key is not None and key.name != key.key else ""


def _name_of(role: Role) -> str | None:
    if not signatures.signing_key_path(role).is_file():
        return None
    return signatures.key_name(signatures.signing_key(role).public_key())


def sign(ranker: str, *, unsigned: bool) -> dict[str, Any]:
    """Sign a ranker's published versions with the present key; which were."""
    return {"ranker": ranker, "signed": sign_again(object_store(), ranker, unsigned=unsigned)}


def sign_all(store: ObjectStore) -> None:
    """Sign everything a store has from before there were keys. What is refused of one ranker is logged."""
    for ranker in rankers_in(store.folders(MODELS), MODELS):
        try:
            done = sign_again(store, ranker, unsigned=True)
        except (DataError, ConfigurationError) as error:
            logger(ranker=ranker).error(
                "not all versions from before there were keys are signed",
                problem=str(error),
                then=f"reshelve keys sign --ranker {ranker} --unsigned",
            )
            continue
        if done:
            logger(ranker=ranker).info("signed versions from before there were keys", versions=done)
