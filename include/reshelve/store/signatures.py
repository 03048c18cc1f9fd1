"""Ed25519 signatures: who may say that a version exists, and who may move what serves.

Each role signs with a private key of its own; whoever believes a signature trusts every public key in a directory
(`trusted_keys`), so that keys are replaced without a gap: trust the new one everywhere, sign with it, distrust the old
one. What is signed is a JSON document in one canonical form, all keys included, also those that this code does not know.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, unique
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from reshelve.errors import ConfigurationError, DataError
from reshelve.files import open_to_others, write_whole
from reshelve.settings import settings
from reshelve.store.roles import Role
from reshelve.store.trusted_keys import TrustedKey, key_name, read_trusted, write_public

__all__ = [
    "SIGNATURE",
    "Signed",
    "Trust",
    "TrustedKey",
    "check_signature",
    "key_name",
    "key_to_sign",
    "make_key_pair",
    "signatures_required",
    "signed",
    "signing_key",
    "signing_key_path",
    "trust",
    "trusted_keys_path",
]

SIGNATURE = "signature"
_SIGNS = {
    Role.BUILD: "versions",
    Role.GATE: "verdicts",
    Role.RELEASE: "moves of the pointer",
    Role.PERSON: "a person's decisions",
}
_HINT = "reshelve keys make; docs/how-to/keys.md says how keys are handed out and replaced"


@unique  # two of one word would be one and the same
class Signed(Enum):
    """What a signature is of: one of something else never fits."""

    MANIFEST = b"reshelve manifest 1\n"
    MOVE = b"reshelve move 1\n"
    VERDICT = b"reshelve verdict 1\n"
    REPORT = b"reshelve report 1\n"


@dataclass(frozen=True)
class Trust:
    """The public keys whose signatures count, by their names; `required` is false where none are asked for.

    `digest`: of all that is said of them, so that a change of it is seen.
    """

    keys: Mapping[str, TrustedKey]
    required: bool = True
    digest: str = ""


def signing_key_path(role: Role = Role.BUILD) -> Path:
    """Where a role's private key is."""
    found = settings()
    asked = {
        Role.BUILD: found.signing_key,
        Role.GATE: found.gate_key,
        Role.RELEASE: found.release_key,
        Role.PERSON: found.person_key,
    }[role]
    return asked or found.home / "keys" / ("signing.pem" if role is Role.BUILD else f"{role.value}.pem")


def trusted_keys_path() -> Path:
    """The directory of the public keys that are trusted."""
    return settings().trusted_keys or settings().home / "keys" / "trusted"


def signatures_required() -> bool:
    """False only where the installation says so: RESHELVE_SIGNATURES=off."""
    return settings().signatures == "required"


def signing_key(role: Role = Role.BUILD) -> Ed25519PrivateKey:
    """A role's private key. Raises ConfigurationError where it is missing, no Ed25519 key, or others may read it."""
    path = signing_key_path(role)
    try:
        mode, text = path.stat().st_mode, path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"no private key to sign {_SIGNS[role]} with: {path}", _HINT) from error
    if mode & 0o077:
        raise ConfigurationError(
            f"{path}: other users can read the private key", f"chmod 600 {path}, and consider replacing it"
        )
    try:
        key = serialization.load_pem_private_key(text, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(f"{path} is not a private key", str(error)) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(f"{path} is not an Ed25519 key", _HINT)
    return key


def trust() -> Trust:
    """The trusted keys as they are now. Raises ConfigurationError where signatures are required and none is there."""
    directory, required = trusted_keys_path(), signatures_required()
    keys, digest = read_trusted(directory)
    if required and not keys:
        raise ConfigurationError(
            f"no trusted public key in {directory}",
            f"{_HINT}, and the log which file was left out; RESHELVE_SIGNATURES=off loads unsigned versions",
        )
    return Trust(keys, required, digest)


def make_key_pair(role: Role = Role.BUILD, name: str = "", not_after: datetime | None = None) -> str:
    """Make a role's pair: the private part with mode 0600 where there is none yet, its public part trusted; the key's name.

    Raises ConfigurationError where a private key already exists: it is never written over.
    """
    path = signing_key_path(role)
    if path.exists():
        raise _there_already(path)
    key = Ed25519PrivateKey.generate()
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public, directory = key.public_key(), trusted_keys_path()
    document = write_public(public, role, name, not_after)
    directory.mkdir(parents=True, exist_ok=True)
    # First: no private key without its public part.
    write_whole(directory / f"{key_name(public)}.pem", document)
    open_to_others(directory)  # whoever verifies may run as another user
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise _there_already(path) from error
    with os.fdopen(handle, "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return key_name(public)


def _there_already(path: Path) -> ConfigurationError:
    return ConfigurationError(
        f"{path} already exists", "to replace the key, move it away first: docs/how-to/keys.md"
    )


def signed(
    document: Mapping[str, Any], key: Ed25519PrivateKey | None, what: Signed = Signed.MANIFEST
) -> dict[str, Any]:
    """The document with a signature, or without one where `key` is None."""
    bare = {name: value for name, value in document.items() if name != SIGNATURE}
    if key is None:
        return bare
    signature = base64.b64encode(key.sign(_canonical(bare, what))).decode()
    return {**bare, SIGNATURE: {"key": key_name(key.public_key()), "ed25519": signature}}


def key_to_sign(role: Role = Role.BUILD) -> Ed25519PrivateKey | None:
    """A role's private key, or None where signatures are off and none was made."""
    if not signatures_required() and not signing_key_path(role).is_file():
        return None
    return signing_key(role)


def check_signature(
    document: Mapping[str, Any],
    what: str,
    trusted: Trust,
    roles: Collection[Role] = (Role.BUILD,),
    kind: Signed = Signed.MANIFEST,
    *,
    signed_at: datetime | None = None,
    stored_at: datetime | None = None,
) -> TrustedKey | None:
    """The trusted key of one of `roles` that signed the document. Signatures off: None, where it is unsigned.

    `signed_at`: when it says that it was made; `stored_at`: when its store says so. Raises DataError where it is not
    signed, was changed, or its key has another role, was revoked or has expired.
    """
    found = document.get(SIGNATURE)
    if found is None:
        if trusted.required:
            raise DataError(f"{what} is not signed", "what is unsigned is never believed")
        return None
    try:
        name, signature = str(found["key"]), base64.b64decode(str(found["ed25519"]), validate=True)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{what}: its signature is damaged", 'expected {"key": …, "ed25519": …}') from error
    key = trusted.keys.get(name)
    if key is None:
        if not trusted.required:
            return None
        raise DataError(
            f"{what} is signed by the key {name}, which is not trusted here",
            f"trusted: {', '.join(trusted.keys) or 'none'}",
        )
    bare = {word: value for word, value in document.items() if word != SIGNATURE}
    try:
        key.public.verify(signature, _canonical(bare, kind))
    except InvalidSignature as error:
        raise DataError(f"{what} was changed after it was signed", f"key {name}") from error
    if not key.roles & set(roles):
        has, needs = (" or ".join(sorted(names)) for names in (key.roles, roles))
        raise DataError(
            f"{what} is signed by a key of the role {has}", f"key {key.name}; expected the role {needs}"
        )
    if ended := key.ended(signed_at, stored_at):
        raise DataError(f"{what}: {ended}", "docs/how-to/keys.md says what to do")
    return key


def _canonical(document: Mapping[str, Any], what: Signed) -> bytes:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return what.value + text.encode()
