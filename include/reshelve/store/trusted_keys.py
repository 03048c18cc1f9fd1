"""A trusted public key: whose it is, for what its signatures count, and until when.

One file a key, `<name>.pem`: lines `word: value`, then the key itself. Without such lines it is a key from before there
were roles: it signs versions, and its word on the gate's verdict counts.

    role: person
    name: anna
    not-after: 2027-12-01T00:00:00Z
    revoked: 2027-03-05T09:00:00Z
    -----BEGIN PUBLIC KEY-----
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from reshelve.errors import ConfigurationError
from reshelve.logs import logger
from reshelve.store.roles import Role

_BEGIN = b"-----BEGIN"
_LATE = timedelta(minutes=5)  # between a signature and the object that carries it


_BEFORE_ROLES = (Role.BUILD, Role.GATE)


class _Header(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Role
    name: str = Field("", max_length=100)
    not_after: AwareDatetime | None = Field(None, alias="not-after")
    revoked: AwareDatetime | None = None


class TrustedKey:
    """One public key. Its signatures count for its roles, up to `not_after` and `revoked`."""

    def __init__(
        self,
        public: Ed25519PublicKey,
        roles: Iterable[Role],
        name: str = "",
        not_after: datetime | None = None,
        revoked: datetime | None = None,
    ) -> None:
        self.public = public
        self.key = key_name(public)
        self.roles = frozenset(roles)
        self.name = name or self.key
        self.not_after, self.revoked = not_after, revoked

    def ended(self, signed_at: datetime | None, stored_at: datetime | None = None) -> str:
        """Why a signature of that time does not count any more; empty where it does.

        Whoever holds an old key can date back what they sign, and not what the store says of the object that carries it.
        A time without a zone is none.
        """
        if signed_at is not None and signed_at.tzinfo is None:
            signed_at = None
        for word, end in (("revoked", self.revoked), ("expired", self.not_after)):
            if end is None:
                continue
            late = stored_at is not None and stored_at - _LATE > end  # `end` may be the last moment there is
            if signed_at is None or signed_at > end or late:
                return f"the key {self.name} {word} at {end.astimezone(UTC):%Y-%m-%d %H:%M} UTC, before this was signed"
        return ""

    def describe(self) -> dict[str, Any]:
        """For people."""
        found = {"key": self.key, "name": self.name, "roles": sorted(self.roles)}
        ends = {"not_after": self.not_after, "revoked": self.revoked}
        return found | {word: end.isoformat() for word, end in ends.items() if end is not None}


def key_name(public: Ed25519PublicKey) -> str:
    """The first 16 hex digits of the sha256 of the raw public key."""
    raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:16]


def write_public(
    public: Ed25519PublicKey, role: Role, name: str = "", not_after: datetime | None = None
) -> bytes:
    """The file of a key. Raises ConfigurationError where the name cannot stand in one line."""
    if name != " ".join(name.split()) or len(name) > 100:
        raise ConfigurationError(
            f"{name!r} cannot be a key's name", "expected one line of up to 100 characters"
        )
    lines = [f"role: {role.value}"]
    lines += [f"name: {name}"] if name else []
    lines += [f"not-after: {not_after.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"] if not_after else []
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return "".join(f"{line}\n" for line in lines).encode() + pem


def read_trusted(directory: Path) -> tuple[dict[str, TrustedKey], str]:
    """The keys of a directory by their names, and a digest of all that is said of them; read where a file has changed.

    A file that is no trusted key is left out, with an error in the log: it takes the others' word from nobody.
    """
    return _read_all(_stamps(directory))


def read_all_trusted(directory: Path) -> dict[str, TrustedKey]:
    """The keys of a directory. Raises ConfigurationError naming the file that is no trusted key."""
    return {key.key: key for path in sorted(directory.glob("*.pem")) for key in [_parse(path, _read(path))]}


def _stamps(directory: Path) -> tuple[tuple[str, int, int, int], ...]:
    found = []
    for path in sorted(directory.glob("*.pem")):
        try:
            about = path.stat()
            found.append((str(path), about.st_mtime_ns, about.st_ctime_ns, about.st_size))
        except OSError:  # a link to nothing: told where it is read
            found.append((str(path), 0, 0, 0))
    return tuple(found)


@lru_cache(maxsize=16)
def _read_all(stamps: tuple[tuple[str, int, int, int], ...]) -> tuple[dict[str, TrustedKey], str]:
    keys, digest = {}, hashlib.sha256()
    for name, *_ in stamps:
        try:
            body = _read(Path(name))
            digest.update(hashlib.sha256(body).digest())
            key = _parse(Path(name), body)
        except ConfigurationError as error:
            logger(file=name).error("a trusted key is left out: its file is damaged", problem=str(error))
            continue
        keys[key.key] = key
    return keys, digest.hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path} is not a public key", str(error)) from error


def _parse(path: Path, body: bytes) -> TrustedKey:
    lines, begin, pem = body.partition(_BEGIN)
    try:
        public = serialization.load_pem_public_key(begin + pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(f"{path} is not a public key", str(error)) from error
    if not isinstance(public, Ed25519PublicKey):
        raise ConfigurationError(f"{path} is not an Ed25519 key", "expected a file of `reshelve keys make`")
    try:
        text = lines.decode()
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: its first lines are no text", str(error)) from error
    if not text.strip():
        return TrustedKey(public, _BEFORE_ROLES)
    said: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        word, colon, value = line.partition(":")
        if line.strip() and (not colon or word.strip() in said):
            raise ConfigurationError(
                f"{path}:{number}: {line.strip()!r}", "expected `word: value`, each word once"
            )
        if line.strip():
            said[word.strip()] = value.strip()
    try:
        header = _Header.model_validate(said)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigurationError(
            f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}",
            "expected role (build, gate, release or person), name, not-after, revoked; times as 2027-12-01T00:00:00Z",
        ) from error
    return TrustedKey(public, (header.role,), header.name, header.not_after, header.revoked)
