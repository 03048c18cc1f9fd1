"""Names as they may be: what comes from a store, a file, a request or a person is a name only where it is one of these.

Whoever can write one key of a bucket chooses its text. A name ends up in paths, keys, pages, metrics and nginx's
configuration, so it is parsed where it comes in, and nothing further in has to doubt it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Annotated

from pydantic import AfterValidator, Field

from reshelve.errors import ConfigurationError
from reshelve.logs import logger

NEWEST_VERSION = 99_991_231_999
_RANKER = re.compile(r"[a-z][a-z0-9_]{0,40}")
_VERSION = re.compile(r"[1-9][0-9]{0,10}")
_MACHINE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_ADDRESS = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\]):[0-9]{1,5}")
_WORDS = re.compile(r"[A-Za-z][A-Za-z0-9_ .:-]{0,79}")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_SHOWN = 60


def _a(pattern: re.Pattern[str], what: str) -> AfterValidator:
    def parse(text: str) -> str:
        if pattern.fullmatch(text) is None:
            raise ValueError(f"{text[:_SHOWN]!r} is no {what}")
        return text

    return AfterValidator(parse)


RankerName = Annotated[str, _a(_RANKER, "ranker's name")]
"""A small letter, then small letters, digits and underscores: it is a DAG's, a folder's and a served model's name too."""
BaseName = Annotated[str, _a(_RANKER, "base model's name")]
"""Of an entry in the list of base models: never what a package, a path, S3 or an owner's model on the hub is called."""
Version = Annotated[int, Field(ge=1, le=NEWEST_VERSION)]
"""YYYYMMDD and three digits of attempt."""
AgentName = Annotated[str, _a(_MACHINE, "agent's name")]
ClientName = Annotated[str, _a(_MACHINE, "client's name")]
Address = Annotated[str, _a(_ADDRESS, "HOST:PORT")]
Words = Annotated[str, _a(_WORDS, "word for an error")]
"""A short label out of a fixed vocabulary: the name of an error, of a measured number."""


def is_ranker(text: str) -> bool:
    """Whether a text may be a ranker's name."""
    return _RANKER.fullmatch(text) is not None


def require_ranker(text: str) -> str:
    """The name. Raises ConfigurationError where it is none."""
    if not is_ranker(text):
        raise ConfigurationError(
            f"{text[:_SHOWN]!r} is not a valid ranker name",
            "expected a lower-case letter, then at most 40 lower-case letters, digits and underscores",
        )
    return text


def require_machine(text: str, what: str) -> str:
    """The name of an agent or a client, which becomes a part of a key. Raises ConfigurationError naming `what`."""
    if _MACHINE.fullmatch(text) is None:
        raise ConfigurationError(
            f"{text[:_SHOWN]!r} is no {what}'s name",
            "expected letters, digits, '.', '_' and '-', at most 128",
        )
    return text


def require_address(text: str, what: str) -> str:
    """HOST:PORT. Raises ConfigurationError naming `what` where it is none."""
    if _ADDRESS.fullmatch(text) is None or not 0 < int(text.rpartition(":")[2]) < 65536:
        raise ConfigurationError(
            f"{what}: {text[:_SHOWN]!r} is not an address", "expected HOST:PORT or [IPV6]:PORT"
        )
    return text


def rankers_in(folders: Iterable[str], where: str) -> list[str]:
    """The names among a bucket's or a directory's folders that are rankers'; of each other one the log tells once."""
    return [name for name in folders if is_ranker(name) or _strange(name, where)]


def version_of(text: str) -> int | None:
    """The version a folder is named for, or None: plain digits without a leading zero."""
    return int(text) if _VERSION.fullmatch(text) and int(text) <= NEWEST_VERSION else None


def is_day(text: str) -> bool:
    """Whether a folder is named for a day."""
    return _DAY.fullmatch(text) is not None


@lru_cache(maxsize=1000)
def _strange(name: str, where: str) -> bool:
    """Always False: remembered, so that a folder that is listed every few seconds is told of once."""
    logger().warning(
        "ignored a folder that is not named after a ranker", where=where, folder=repr(name[:_SHOWN])
    )
    return False
