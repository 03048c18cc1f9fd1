"""Who may call the gateway: tokens with a name, a scope, an end and limits, kept as salted hashes.

A token is `<name>.<43 random characters>`. Only its salted SHA-256 is kept: the random part has 256 bits, so no slow
hash is needed, and the gateway can afford one for each request.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from reshelve.errors import ConfigurationError
from reshelve.logs import logger
from reshelve.names import RankerName

SHORTEST = 32
_TEXT = re.compile(rf"[A-Za-z0-9._~+/=-]{{{SHORTEST},200}}")
_RANDOM_BYTES = 32

TokenName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,40}$")]
"""Of the caller who has the token. It stands in nginx's configuration and in messages: no secret."""


LARGEST_BODY = 1024
"""Kilobytes that no token's limit goes beyond."""


class Limits(BaseModel):
    """What one token may ask of the gateway."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests_per_second: int = Field(1000, ge=1, le=100_000)
    concurrent: int = Field(512, ge=1, le=4096)
    body_kilobytes: int = Field(64, ge=1, le=LARGEST_BODY)
    rows: int = Field(128, ge=1, le=10_000)


class Token(BaseModel):
    """What is kept of a token. `rankers` None: all of them. `expires` None: never."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: TokenName
    salt: str = Field(pattern=r"^[0-9a-f]{32}$")
    hash: str = Field(pattern=r"^[0-9a-f]{64}$")
    given: bool = Field(False, description="Brought from elsewhere: it does not begin with its name.")
    rankers: tuple[RankerName, ...] | None = None
    created: AwareDatetime
    expires: AwareDatetime | None
    limits: Limits = Limits()

    def matches(self, text: str) -> bool:
        """Whether this is the token, to the letter; takes as long for a wrong one."""
        return hmac.compare_digest(_hashed(self.salt, text), self.hash)

    def expired(self, now: datetime.datetime | None = None) -> bool:
        """Whether its time is over."""
        return self.expires is not None and self.expires <= (now or _now())


class Tokens(BaseModel):
    """The file of tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tokens: tuple[Token, ...] = ()

    def find(self, text: str) -> Token | None:
        """The token that a caller brought, expired or not; None where it is none of ours."""
        name = text.partition(".")[0]
        candidates = (token for token in self.tokens if token.given or token.name == name)
        return next((token for token in candidates if token.matches(text)), None)

    def without(self, name: str) -> tuple[Token, ...]:
        """All but that one."""
        return tuple(token for token in self.tokens if token.name != name)


class TokensFile:
    """A file of tokens that is read again when it changes, so that a revoked token is refused at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tokens = Tokens()
        self._seen: tuple[int, ...] | None = None

    def current(self) -> Tokens:
        """What the file says now; what it said last where it cannot be read, which the log tells once. No file: no token."""
        seen = self._state()
        if seen != self._seen:
            try:
                self._tokens = read_tokens(self.path)
            except ConfigurationError as error:
                logger(part="gateway").error("the tokens stay as they were", problem=str(error))
            self._seen = seen
        return self._tokens

    def _state(self) -> tuple[int, ...]:
        try:
            found = self.path.stat()
        except OSError:
            return ()
        return found.st_mtime_ns, found.st_ino, found.st_size


def read_tokens(path: Path) -> Tokens:
    """The tokens of a file; none where there is no file.

    Raises ConfigurationError naming the place and what is wrong there, without the values.
    """
    try:
        return Tokens.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return Tokens()
    except OSError as error:
        raise ConfigurationError(
            f"{path}: {error.strerror}", "expected the file of the gateway's tokens"
        ) from error
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in problem["loc"])
        raise ConfigurationError(
            f"{path}: {place}: {problem['msg']}", "`reshelve tokens` writes this file"
        ) from None


def new_token(
    name: str,
    rankers: tuple[str, ...] | None,
    days: int | None,
    limits: Limits,
    given: str | None = None,
) -> tuple[str, Token]:
    """A token's text and what is kept of it. `days` None: it never expires; `given`: a text from elsewhere.

    Raises ConfigurationError for a given text that is too short or no bearer token.
    """
    if given is not None and _TEXT.fullmatch(given) is None:
        raise ConfigurationError(
            "the given token cannot be used",
            f"expected {SHORTEST} to 200 random characters out of A-Z a-z 0-9 . _ ~ + / = -",
        )
    text = given or f"{name}.{secrets.token_urlsafe(_RANDOM_BYTES)}"
    salt, now = secrets.token_hex(16), _now().replace(microsecond=0)
    kept: Mapping[str, object] = {
        "name": name,
        "salt": salt,
        "hash": _hashed(salt, text),
        "given": given is not None,
        "rankers": rankers,
        "created": now,
        "expires": None if days is None else now + datetime.timedelta(days=days),
        "limits": limits,
    }
    return text, Token.model_validate(kept)


def _hashed(salt: str, text: str) -> str:
    return hashlib.sha256(f"{salt}.{text}".encode()).hexdigest()


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
