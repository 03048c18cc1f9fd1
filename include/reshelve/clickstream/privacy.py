"""What is done to personal data on entry: ids become pseudonyms, and free texts are masked (`masks.py`).

A pseudonym is a keyed hash (HMAC's construction with SHA-256 and keys derived from the secret), so that nobody
without the secret can try out ids. Each key begins on a day: a partition always has the key of its own day, so
that landing it again gives the same rows; and after a rotation nobody's days can be joined across it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import duckdb

from reshelve.clickstream.database import column
from reshelve.clickstream.masks import mask_events
from reshelve.errors import ConfigurationError
from reshelve.settings import settings

PSEUDONYMOUS = ("user_id", "session_id")
_LENGTH = 32  # hex digits: 128 bits
_LEAST_SECRET = 16  # characters


@dataclass(frozen=True)
class Key:
    """One secret and the first day it is used for."""

    begins: date
    secret: str

    def part(self, name: str) -> str:
        """A key for one use, in hex."""
        return hmac.new(self.secret.encode(), name.encode(), hashlib.sha256).hexdigest()


def pseudonym_keys() -> tuple[Key, ...]:
    """The keys of `RESHELVE_PSEUDONYM_KEYS`, oldest first; none where it is not set.

    Raises ConfigurationError, without the secret, where it is not DATE:SECRET[,DATE:SECRET …].
    """
    given = settings().pseudonym_keys.get_secret_value()
    keys = []
    for number, entry in enumerate(filter(None, given.split(",")), 1):
        begins, _, secret = entry.strip().partition(":")
        try:
            keys.append(Key(date.fromisoformat(begins), secret))
        except ValueError:
            raise ConfigurationError(
                f"RESHELVE_PSEUDONYM_KEYS: entry {number} does not begin with a day",
                "expected YYYY-MM-DD:SECRET, several with commas between",
            ) from None
        if len(secret) < _LEAST_SECRET:
            raise ConfigurationError(
                f"RESHELVE_PSEUDONYM_KEYS: the secret of {begins} is shorter than {_LEAST_SECRET} characters"
            )
    return tuple(sorted(keys, key=lambda key: key.begins))


def pseudonym(value: str, keys: Sequence[Key], day: date) -> str:
    """The pseudonym that `protect` gives an id on `day`. `keys` are oldest first; there must be one."""
    key = next((key for key in reversed(keys) if day >= key.begins), keys[0])
    inner = hashlib.sha256(f"{key.part('inner')}{value}".encode()).hexdigest()
    return hashlib.sha256(f"{key.part('outer')}{inner}".encode()).hexdigest()[:_LENGTH]


def protect(db: duckdb.DuckDBPyConnection) -> int:
    """Mask and pseudonymise the table `events` (with its `day`) in place; returns in how many rows a text was masked.

    The keys are variables of a connection of their own, which ends here: no statement, and so no error, holds a key, and
    no expression of a mapping file runs where it could ask for one.
    """
    masked = mask_events(db)
    keys = pseudonym_keys()
    if not keys:
        return masked
    changes = [f"{column(name)} = {_pseudonym(column(name), keys)}" for name in PSEUDONYMOUS]
    with db.cursor() as own:
        for number, key in enumerate(keys):
            for part in ("inner", "outer"):
                own.execute(f"SET VARIABLE {part}_{number} = '{key.part(part)}'")
        own.execute(f"UPDATE events SET {', '.join(changes)}")
    return masked


def _pseudonym(name: str, keys: tuple[Key, ...]) -> str:
    """The SQL of an id's pseudonym under the key of its day; days before the first key have the first."""
    hashed = [
        f"left(sha256(concat(getvariable('outer_{n}'), sha256(concat(getvariable('inner_{n}'), {name})))), {_LENGTH})"
        for n in range(len(keys))
    ]
    cases = [
        f"WHEN day >= DATE '{key.begins}' THEN {hashed[n]}" for n, key in reversed(list(enumerate(keys)))
    ]
    return f"CASE WHEN {name} IS NULL THEN NULL {' '.join(cases)} ELSE {hashed[0]} END"
