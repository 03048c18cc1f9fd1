"""Ed25519 signatures of manifests: who may say that a version exists.

A publisher signs with one private key; agents and whoever moves a pointer trust every public key in a directory, so
that keys are replaced without a gap: trust the new one everywhere, sign with it, distrust the old one. What is
signed is the manifest as JSON in one canonical form, all keys included, also those that this code does not know.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from reshelve.errors import ConfigurationError, DataError
from reshelve.files import open_to_others, write_whole
from reshelve.settings import settings

SIGNATURE = "signature"
_WHAT = b"reshelve manifest 1\n"  # a signature of something else never fits a manifest
_HINT = "reshelve keys make; docs/how-to/keys.md says how keys are handed out and replaced"


@dataclass(frozen=True)
class Trust:
    """The public keys whose signatures count, by their names; `required` is false where none are asked for."""

    keys: Mapping[str, Ed25519PublicKey]
    required: bool = True


def key_name(public: Ed25519PublicKey) -> str:
    """The first 16 hex digits of the sha256 of the raw public key."""
    raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:16]


def signing_key_path() -> Path:
    """Where the private key is."""
    return settings().signing_key or settings().home / "keys" / "signing.pem"


def trusted_keys_path() -> Path:
    """The directory of the public keys that are trusted."""
    return settings().trusted_keys or settings().home / "keys" / "trusted"


def signatures_required() -> bool:
    """False only where the installation says so: RESHELVE_SIGNATURES=off."""
    return settings().signatures == "required"


def signing_key() -> Ed25519PrivateKey:
    """The private key. Raises ConfigurationError where it is missing, no Ed25519 key, or others may read it."""
    path = signing_key_path()
    try:
        mode, text = path.stat().st_mode, path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"no private key to sign versions with: {path}", _HINT) from error
    if mode & 0o077:
        raise ConfigurationError(
            f"{path}: other users can read the private key", f"chmod 600 {path}, and consider replacing it"
        )
    try:
        key = serialization.load_pem_private_key(text, None)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{path} is not a private key", str(error)) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(f"{path} is not an Ed25519 key", _HINT)
    return key


def trust() -> Trust:
    """The trusted keys, read anew each time. Raises ConfigurationError where signatures are required and none is there."""
    directory, required = trusted_keys_path(), signatures_required()
    keys = {}
    for path in sorted(directory.glob("*.pem")):
        try:
            key = serialization.load_pem_public_key(path.read_bytes())
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"{path} is not a public key", str(error)) from error
        if not isinstance(key, Ed25519PublicKey):
            raise ConfigurationError(f"{path} is not an Ed25519 key", _HINT)
        keys[key_name(key)] = key
    if required and not keys:
        raise ConfigurationError(
            f"no trusted public key in {directory}",
            f"{_HINT}; RESHELVE_SIGNATURES=off loads unsigned versions",
        )
    return Trust(keys, required)


def make_key_pair() -> str:
    """Make a pair: the private part with mode 0600 where there is none yet, its public part trusted; the key's name.

    Raises ConfigurationError where a private key already exists: it is never written over.
    """
    path = signing_key_path()
    if path.exists():
        raise _there_already(path)
    key = Ed25519PrivateKey.generate()
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _trust_public(key.public_key())  # first: a private key is never there without its public part
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise _there_already(path) from error
    with os.fdopen(handle, "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return key_name(key.public_key())


def _there_already(path: Path) -> ConfigurationError:
    return ConfigurationError(
        f"{path} already exists", "to replace the key, move it away first: docs/how-to/keys.md"
    )


def _trust_public(public: Ed25519PublicKey) -> None:
    directory = trusted_keys_path()
    directory.mkdir(parents=True, exist_ok=True)
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    write_whole(directory / f"{key_name(public)}.pem", pem)
    open_to_others(directory)  # public keys: whoever verifies may run as another user


def signed(document: Mapping[str, Any], key: Ed25519PrivateKey | None) -> dict[str, Any]:
    """The document with a signature, or without one where `key` is None."""
    bare = {name: value for name, value in document.items() if name != SIGNATURE}
    if key is None:
        return bare
    signature = base64.b64encode(key.sign(_canonical(bare))).decode()
    return {**bare, SIGNATURE: {"key": key_name(key.public_key()), "ed25519": signature}}


def key_to_sign() -> Ed25519PrivateKey | None:
    """The private key, or None where signatures are off and none was made."""
    if not signatures_required() and not signing_key_path().is_file():
        return None
    return signing_key()


def check_signature(document: Mapping[str, Any], what: str, trusted: Trust) -> None:
    """Raises DataError where the document is not signed by a trusted key. Signatures off: an unsigned one may pass."""
    found = document.get(SIGNATURE)
    if found is None:
        if trusted.required:
            raise DataError(f"{what} is not signed", "an unsigned version is never loaded")
        return
    try:
        name, signature = str(found["key"]), base64.b64decode(str(found["ed25519"]), validate=True)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{what}: its signature is damaged", 'expected {"key": …, "ed25519": …}') from error
    key = trusted.keys.get(name)
    if key is None:
        if not trusted.required:
            return
        raise DataError(
            f"{what} is signed by the key {name}, which is not trusted here",
            f"trusted: {', '.join(trusted.keys) or 'none'}",
        )
    bare = {name: value for name, value in document.items() if name != SIGNATURE}
    try:
        key.verify(signature, _canonical(bare))
    except InvalidSignature as error:
        raise DataError(f"{what} was changed after it was signed", f"key {name}") from error


def _canonical(document: Mapping[str, Any]) -> bytes:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return _WHAT + text.encode()
