"""A verb's result as one block that a person reads: aligned names, small tables, nothing longer than a screen."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

MOST_ROWS = 12  # of a nested part; longer ones are counted, their contents are in the stored result
MOST_CHARACTERS = 160  # of one value
_WIDTH = 78


def block(title: str, result: Mapping[str, Any]) -> list[str]:
    """The lines of a result below a rule with its title."""
    rule = f"── {title} ".ljust(_WIDTH, "─")
    return [rule, *lines(result), "─" * _WIDTH]


def lines(result: Mapping[str, Any]) -> list[str]:
    """`name  value` for every key; nested parts are indented below theirs."""
    width = max((len(key) for key in result), default=0)
    found: list[str] = []
    for key, value in result.items():
        below = list(_below(value))
        if below:
            found += [key, *(f"  {line}" for line in below)]
        else:
            found.append(f"{key:<{width}}  {_text(value)}".rstrip())
    return found


def _below(value: Any) -> Iterator[str]:
    """The lines of a nested part that is a table; none where it fits its own line or is too long to be read."""
    if isinstance(value, Mapping) and 0 < len(value) <= MOST_ROWS:
        if all(isinstance(row, Mapping) for row in value.values()):
            yield from _table([{"": name, **row} for name, row in value.items()])
        elif len(value) > 1:
            width = max(len(str(name)) for name in value)
            yield from (f"{name!s:<{width}}  {_text(each)}".rstrip() for name, each in value.items())
    elif isinstance(value, Sequence) and not isinstance(value, str) and 0 < len(value) <= MOST_ROWS:
        if all(isinstance(row, Mapping) for row in value):
            yield from _table(value)
        elif any(isinstance(row, str) and " " in row for row in value):
            yield from (_text(row) for row in value)  # sentences, such as the gate's reasons


def _table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    head = list(dict.fromkeys(name for row in rows for name in row))
    cells = [head, *([_text(row.get(name, ""), 40) for name in head] for row in rows)]
    widths = [max(len(row[place]) for row in cells) for place in range(len(head))]
    for row in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _text(value: Any, most: int = MOST_CHARACTERS) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case None:
            return "–"
        case float():
            return f"{value:.6g}"
        case str():
            text = value.replace("\n", " ")
        case Mapping() | list() | tuple() if len(value) > MOST_ROWS:
            return f"({len(value)} entries)"
        case list() | tuple():
            text = ", ".join(_text(each, most) for each in value)
        case Mapping():
            text = ", ".join(f"{name} {_text(each, most)}" for name, each in value.items())
        case _:
            text = json.dumps(value, default=str)
    return text if len(text) <= most else f"{text[: most - 1]}…"
