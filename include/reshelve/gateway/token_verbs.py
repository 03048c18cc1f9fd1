"""What the `tokens` verbs do: make a token, list them without secrets, revoke one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from reshelve.errors import ConfigurationError, TryAgainError
from reshelve.files import take_lock, write_private
from reshelve.gateway.tokens import Limits, Token, Tokens, new_token, read_tokens
from reshelve.names import require_ranker
from reshelve.settings import settings

_NAME = re.compile(r"[a-z][a-z0-9-]{0,40}")
_LOCK_SECONDS = 10.0


def tokens_path() -> Path:
    """Where the tokens of this machine's gateway are."""
    return settings().gateway_tokens_file or settings().home / "gateway" / "tokens.json"


def make(
    name: str, *, rankers: Sequence[str], days: int, given: str | None = None, **limits: int
) -> dict[str, Any]:
    """Make a token, whose text is in the result and nowhere else. `days` 0: it never expires.

    Raises ConfigurationError for a name that is taken or none, for limits out of range, and for a given text that cannot be a token.
    """
    if _NAME.fullmatch(name) is None:
        raise ConfigurationError(
            f"{name[:60]!r} is not a token's name",
            "expected a lower-case letter, then at most 40 lower-case letters, digits and hyphens",
        )
    scope = tuple(require_ranker(ranker) for ranker in rankers) or None
    allowed = _limits(limits)
    if given is not None and (allowed.requests_per_second, allowed.concurrent) != _COMMON:
        raise ConfigurationError(
            "a given token has the default requests_per_second and concurrent",
            "nginx knows a token's own limits by the name it begins with: make a new one for others",
        )
    with _changed() as path:
        tokens = read_tokens(path)
        if any(token.name == name for token in tokens.tokens):
            raise ConfigurationError(
                f"there is a token {name}", "choose another name; to rotate: make, switch the caller, revoke"
            )
        text, token = new_token(name, scope, days or None, allowed, given)
        _write(path, (*tokens.tokens, token))
    shown = (
        {"token": "as given"}
        if given
        else {"token": text, "note": "shown once: keep it where secrets are kept"}
    )
    return {**shown, **_described(token), "file": str(path)}


_COMMON = (Limits().requests_per_second, Limits().concurrent)


def describe() -> dict[str, Any]:
    """All tokens, without what could be used."""
    path = tokens_path()
    return {"file": str(path), "tokens": [_described(token) for token in read_tokens(path).tokens]}


def in_words() -> dict[str, Any]:
    """The same for a person: a line for each token, however many there are."""
    found = describe()
    return {"kept in": found["file"], **{token["name"]: _sentence(token) for token in found["tokens"]}}


def _sentence(token: dict[str, Any]) -> str:
    rankers = token["rankers"] if token["rankers"] == "all" else ", ".join(token["rankers"])
    end = (
        "expired"
        if token["expired"]
        else f"until {token['expires'][:10]}"
        if token["expires"] != "never"
        else "never expires"
    )
    return (
        f"rankers: {rankers}; {end}; {token['requests_per_second']} requests per second, {token['concurrent']} at once, "
        f"{token['body_kilobytes']} KB, {token['rows']} rows"
    )


def revoke(name: str) -> dict[str, Any]:
    """Take a token away. Raises ConfigurationError where there is none of that name."""
    with _changed() as path:
        tokens = read_tokens(path)
        left = tokens.without(name)
        if left == tokens.tokens:
            known = ", ".join(token.name for token in tokens.tokens) or "none"
            raise ConfigurationError(f"no token {name[:60]!r} in {path}", f"there are: {known}")
        _write(path, left)
    return {"revoked": name, "file": str(path)}


def _described(token: Token) -> dict[str, Any]:
    return {
        "name": token.name,
        "rankers": list(token.rankers) if token.rankers else "all",
        "created": token.created.date().isoformat(),
        "expires": token.expires.isoformat() if token.expires else "never",
        "expired": token.expired(),
        **token.limits.model_dump(),
    }


def _limits(given: dict[str, int]) -> Limits:
    try:
        return Limits(**given)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise ConfigurationError(f"{problem['loc'][0]}={problem['input']}: {problem['msg']}") from None


@contextmanager
def _changed() -> Iterator[Path]:
    """The file's path, while nobody else changes it. Raises TryAgainError where another one does for ten seconds."""
    path = tokens_path()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with path.with_name(f".{path.name}.lock").open("a") as lock:
        if not take_lock(lock, _LOCK_SECONDS):
            raise TryAgainError(f"{path}: somebody else is changing the tokens")
        yield path


def _write(path: Path, tokens: Sequence[Token]) -> None:
    write_private(path, Tokens(tokens=tuple(tokens)).model_dump_json(indent=1) + "\n")
