"""JSON of the bucket, into which others may write: what no document of ours is like is refused before it costs anything."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

MOST_BYTES = 1_000_000
_DEEPEST = 64  # a tenth of what Python's own reader and writer bear


def json_value(body: bytes | str) -> Any:
    """Parsed. Raises ValueError, for what is nested too deeply too."""
    try:
        return json.loads(body)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def json_object(body: bytes) -> dict[str, Any]:
    """A small JSON object. Raises ValueError saying why it is none."""
    if len(body) > MOST_BYTES:
        raise ValueError(f"{len(body):,} bytes, of {MOST_BYTES:,} at most")
    found = json_value(body)
    if not isinstance(found, dict):
        raise ValueError("no object")
    level: list[Any] = [found]
    for _ in range(_DEEPEST):
        level = [inner for one in level for inner in _inside(one)]
        if not level:
            return found
    raise ValueError(f"nested more than {_DEEPEST} deep")


def moment(text: Any) -> datetime | None:
    """A time with its zone; None where it is none."""
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found if found.tzinfo else None


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
