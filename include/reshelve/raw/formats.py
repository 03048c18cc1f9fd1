"""The formats of raw files that there are. A further one is a file with its RawFormat, and its name in `_FORMATS`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from reshelve.raw.raw_csv import CSV, TSV
from reshelve.raw.raw_format import RawFormat
from reshelve.raw.raw_json import JSON
from reshelve.raw.raw_parquet import PARQUET

_FORMATS = {each.name: each for each in (PARQUET, CSV, TSV, JSON)}


def format_names() -> tuple[str, ...]:
    """All of them."""
    return tuple(_FORMATS)


def register(added: RawFormat) -> None:
    """Add a format of your own. Raises ValueError where its name or one of its endings is taken."""
    taken = {ending for each in _FORMATS.values() for ending in each.endings}
    if added.name in _FORMATS or taken.intersection(added.endings):
        raise ValueError(f"raw format {added.name}: its name or one of its endings is taken")
    _FORMATS[added.name] = added


def raw_format(name: str) -> RawFormat:
    """A format by its name, of those that there are."""
    return _FORMATS[name]


def format_of(path: Path) -> RawFormat | None:
    """The format that a file's ending tells; None where none does."""
    name = path.name.lower()
    return next((each for each in _FORMATS.values() if name.endswith(each.all_endings)), None)


def known_endings() -> tuple[str, ...]:
    """The endings that tell a format."""
    return tuple(ending for each in _FORMATS.values() for ending in each.all_endings)


def _known(name: str) -> str:
    if name not in _FORMATS:
        raise ValueError(f"{name!r} is no format of raw files; expected one of {', '.join(_FORMATS)}")
    return name


FormatName = Annotated[str, AfterValidator(_known)]
"""The name of a format in a mapping file."""
