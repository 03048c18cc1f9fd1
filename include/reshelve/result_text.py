"""A verb's result as one block that a person reads: aligned names, small tables, and every message whole.

On a terminal what is long goes on in the next line, below where it began. A log that is no terminal is searched and
copied from: there nothing is wrapped. Nothing is ever cut.
"""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

from reshelve.notation import plain

MOST_ROWS = 14  # as many as an event has columns; of a nested part; longer ones are counted, their contents are in the stored result
_RULE = 78
_LEAST = 16  # characters of a wrapped column: below that a terminal does the wrapping itself


def width_of(stream: TextIO) -> int | None:
    """The columns of the terminal that `stream` is; None where it is none."""
    return shutil.get_terminal_size().columns if stream.isatty() else None


def block(title: str, result: Mapping[str, Any], width: int | None = None) -> list[str]:
    """The lines of a result below a rule with its title."""
    rule = f"── {title} ".ljust(_RULE, "─")
    return [rule, *lines(result, width), "─" * _RULE]


def lines(result: Mapping[str, Any], width: int | None = None) -> list[str]:
    """`name  value` for every key; nested parts are indented below theirs. Wrapped to `width`; None: not at all."""
    names = max((len(key) for key in result), default=0)
    found: list[str] = []
    for key, value in result.items():
        below = list(_below(value, width and width - 2))
        if below:
            found += [key, *(f"  {line}" for line in below)]
        else:
            found += _named(key, _text(value), names, width)
    return found


def _below(value: Any, width: int | None) -> Iterator[str]:
    """The lines of a nested part that is a table; none where it fits its own line or is too long to be read."""
    if isinstance(value, Mapping) and 0 < len(value) <= MOST_ROWS:
        if all(isinstance(row, Mapping) for row in value.values()):
            yield from _table([{"": name, **row} for name, row in value.items()], width)
        elif len(value) > 1:
            names = max(len(str(name)) for name in value)
            for name, each in value.items():
                yield from _named(str(name), _text(each), names, width)
    elif isinstance(value, Sequence) and not isinstance(value, str) and 0 < len(value) <= MOST_ROWS:
        if all(isinstance(row, Mapping) for row in value):
            yield from _table(value, width)
        elif any(
            isinstance(row, str) and " " in row for row in value
        ):  # sentences, such as the gate's reasons
            for row in value:
                yield from _wrapped(_text(row), width)


def _named(name: str, text: str, names: int, width: int | None) -> Iterator[str]:
    first, *more = _wrapped(text, width and width - names - 2)
    yield f"{name:<{names}}  {first}".rstrip()
    yield from (f"{'':<{names}}  {line}" for line in more)


def _table(rows: Sequence[Mapping[str, Any]], width: int | None) -> Iterator[str]:
    head = list(dict.fromkeys(name for row in rows for name in row))
    cells = [head, *([_text(row.get(name, "")) for name in head] for row in rows)]
    widths = [max(len(row[place]) for row in cells) for place in range(len(head))]
    while width and sum(widths) + 2 * (len(widths) - 1) > width and max(widths) > _LEAST:
        widths[widths.index(max(widths))] -= 1
    for row in cells:
        columns = [_wrapped(cell, limit) for cell, limit in zip(row, widths, strict=True)]
        for number in range(max(map(len, columns), default=0)):
            parts = [column[number] if number < len(column) else "" for column in columns]
            yield "  ".join(part.ljust(limit) for part, limit in zip(parts, widths, strict=True)).rstrip()


def _wrapped(text: str, width: int | None) -> list[str]:
    if width is None or len(text) <= max(width, _LEAST):
        return [text]
    return textwrap.wrap(text, max(width, _LEAST), break_on_hyphens=False) or [""]


def _text(value: Any) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case None:
            return "–"
        case float():
            return plain(value)
        case str():
            return value.replace("\n", " ")
        case Mapping() | list() | tuple() if len(value) > MOST_ROWS:
            return f"({len(value)} entries)"
        case list() | tuple():
            return ", ".join(_text(each) for each in value)
        case Mapping():
            return ", ".join(f"{name} {_text(each)}" for name, each in value.items())
        case _:
            return json.dumps(value, default=str)
