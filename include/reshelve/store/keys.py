"""What the `keys` verbs and the platform do with keys."""

from __future__ import annotations

from typing import Any

from reshelve.logs import logger
from reshelve.names import rankers_in
from reshelve.store import signatures
from reshelve.store.layout import MODELS
from reshelve.store.objects import ObjectStore, object_store
from reshelve.store.versions import sign_again


def make(*, if_missing: bool) -> dict[str, Any]:
    """Make a key pair; `made` is false where there was one and `if_missing` keeps it."""
    path = signatures.signing_key_path()
    if if_missing and path.is_file():
        return {"made": False, **describe()}
    name = signatures.make_key_pair()
    logger(key=name).info("made a key pair", private=str(path), trusted=str(signatures.trusted_keys_path()))
    return {"made": True, **describe()}


def describe() -> dict[str, Any]:
    """The name of the key that signs (None without one), the names that are trusted, and where both are."""
    path = signatures.signing_key_path()
    signs = signatures.key_name(signatures.signing_key().public_key()) if path.is_file() else None
    return {
        "signatures": "required" if signatures.signatures_required() else "off",
        "signs": signs,
        "private": str(path),
        "trusted": sorted(signatures.trust().keys),
        "directory": str(signatures.trusted_keys_path()),
    }


def sign(ranker: str, *, unsigned: bool) -> dict[str, Any]:
    """Sign a ranker's published versions with the present key; which were."""
    return {"ranker": ranker, "signed": sign_again(object_store(), ranker, unsigned=unsigned)}


def sign_all(store: ObjectStore) -> None:
    """Sign everything a store has from before there were keys."""
    for ranker in rankers_in(store.folders(MODELS), MODELS):
        if done := sign_again(store, ranker, unsigned=True):
            logger(ranker=ranker).info("signed versions from before there were keys", versions=done)
