"""What a drafted mapping file says of raw files and columns: how they are read, and what was seen, without anybody's values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from reshelve.clickstream.database import column
from reshelve.clickstream.masks import mask
from reshelve.landing.look import Look
from reshelve.raw.column_kinds import Column

_SHOWN = 3
_LONGEST = 40  # characters of a shape


def reading(look: Look, indent: str = "") -> Iterator[str]:
    """The lines that say how files are read."""
    yield f"{indent}format: {look.file_format}"
    for note in look.notes:
        yield f"{indent}# {note}"
    if look.options:
        yield f"{indent}options: {json.dumps(look.options, ensure_ascii=False)}"


def seen(one: Column, examples: bool = False) -> str:
    """`integer, 812 different in 5,000 rows, 12 unknown, such as 00412 | 0413`."""
    said = f"{one.kind.name}, {one.distinct:,} different in {one.rows:,} rows"
    if one.known < one.rows:
        said += f", {one.rows - one.known:,} unknown"
    shown = dict.fromkeys(mask(value) for value in one.values[:_SHOWN] if value.isprintable())
    return said + (f", such as {' | '.join(shown)}" if examples and shown else "")


def not_used(one: Column) -> str:
    """A column that stands for nothing yet: by the form of its values, for they may be a person's."""
    return f"# not used: {column(one.name)}: {formed(one)}"


def formed(one: Column) -> str:
    """`seen`, with the form of the values in place of the values: `such as aa-99 | aa-999`."""
    forms = dict.fromkeys(_form(value) for value in one.values if value.isprintable())
    shown = " | ".join(list(forms)[:_SHOWN])
    return seen(one) + (f", such as {shown}" if shown else "")


def _form(value: str) -> str:
    letters = re.sub(r"[^\W\d_]", "a", re.sub(r"\d", "9", value))
    return letters if len(letters) <= _LONGEST else f"{letters[:_LONGEST]}…"
