"""The reviewed list of base models, `include/bases.yaml`: what the trigger form of a night offers, by name.

Whoever starts a night by Airflow's form or API chooses from it. A ranker file is reviewed itself: its `model.base` may name
an entry, or any model. What an entry says of its files holds whoever names them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from reshelve.config.yaml_models import Form, load_form
from reshelve.errors import ConfigurationError
from reshelve.names import BaseName, is_ranker
from reshelve.settings import settings

HUB_NAME = re.compile(r"^[\w.-]+(/[\w.-]+)?(@[\w.-]+)?$")
_PINNED = re.compile(r"[\w.-]+(/[\w.-]+)?@[0-9a-f]{40}")
_FETCHED = re.compile(r"package:[A-Za-z_]\w*(\.\w+)*|s3://[\w.-]+/\S+")
_EXPECTED = (
    "expected package:NAME, s3://BUCKET/PREFIX, a directory, or NAME@COMMIT of the hub with all 40 digits"
)


def is_directory(uri: str) -> bool:
    """Whether `model.base` names a directory of this machine."""
    return uri.startswith(("/", ".", "~"))


def _source(uri: str) -> str:
    """A branch or tag of the hub may move: what was reviewed is a commit."""
    if not (is_directory(uri) or _FETCHED.fullmatch(uri) or _PINNED.fullmatch(uri)):
        raise ValueError(_EXPECTED)
    return uri


class ListedBase(Form):
    """One base model that nights may start from."""

    source: Annotated[str, StringConstraints(max_length=500), AfterValidator(_source)] = Field(
        description="package:NAME, s3://BUCKET/PREFIX, a directory, or a hub name with @ and a commit."
    )
    why: str = Field(
        min_length=10, max_length=500, description="Why it may be used: where it is from, its licence."
    )
    revision: str | None = Field(
        None, min_length=1, max_length=100, description="The revision that a version records; null: any."
    )
    files: dict[str, Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]] = Field(
        default_factory=dict,
        description="The sha256 of every file that is read (.safetensors, .json, .txt), as `base.json` of a version has them; "
        "empty: any.",
    )

    def misfit(self, revision: str, files: Mapping[str, str]) -> str:
        """What a base is otherwise than listed; empty where it is as listed."""
        if self.revision not in (None, revision):
            return f"expected the revision {self.revision}, got {revision}"
        if self.files and (others := sorted(self.files.items() ^ files.items())):
            return f"{others[0][0]} is not the file that is listed"
        return ""


class Bases(Form):
    """`include/bases.yaml`."""

    bases: dict[BaseName, ListedBase]


def read_bases() -> Mapping[str, ListedBase]:
    """The list, by name. Raises ConfigurationError with file, line, key and what was expected."""
    path = settings().bases
    try:
        about = path.stat()
        stamp = (about.st_mtime_ns, about.st_ctime_ns, about.st_size)
    except OSError as error:
        raise ConfigurationError(f"{path}:1: cannot be read", str(error)) from error
    return _read(path, stamp)


@lru_cache(maxsize=4)
def _read(path: Path, stamp: tuple[int, ...]) -> Mapping[str, ListedBase]:
    return load_form(Bases, path).bases


def listed(name: str) -> ListedBase:
    """An entry. Raises ConfigurationError where there is none of that name, or the list is wrong."""
    found = read_bases()
    if name not in found:
        raise ConfigurationError(
            f"model.base: {name[:80]!r} is not in the list of base models",
            f"known in {settings().bases}: {', '.join(sorted(found)) or 'none'}",
        )
    return found[name]


def source_of(base: str) -> str:
    """What `model.base` of a ranker file stands for: an entry's source, or itself.

    Raises ConfigurationError where it may be an entry's name and the list is wrong.
    """
    entry = read_bases().get(base) if is_ranker(base) else None
    return base if entry is None else entry.source


def not_as_listed(source: str, revision: str, files: Mapping[str, str]) -> str:
    """Why a base that was fetched is not what the list says of its source; empty where it is, or is not listed.

    Raises ConfigurationError where the list is wrong: nobody knows then.
    """
    for name, entry in read_bases().items():
        if entry.source == source and (why := entry.misfit(revision, files)):
            return f"{why} ({name} in {settings().bases})"
    return ""
