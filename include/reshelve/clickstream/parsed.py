"""What DuckDB's parser says of the SQL in a mapping file: whether it names the row, and where it reads a time out of a text.

DuckDB leaves an offset out when it casts a text to TIMESTAMP or DATE: `2011-08-01T09:00:00+02:00` becomes nine o'clock.
Here it becomes 07:00, UTC.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import duckdb

from reshelve.clickstream.database import text

_TIMES = {"DATE", "DATETIME", "TIMESTAMP", "TIMESTAMP_MS", "TIMESTAMP_NS", "TIMESTAMP_S", "TIMESTAMP_US"}


def cast_of_text(sql: str, sql_type: str) -> str:
    """The cast of a text to a type, by way of UTC where that is a time."""
    return in_utc(sql, sql_type) if sql_type.upper() in _TIMES else f"CAST({sql} AS {sql_type})"


def in_utc(sql: str, sql_type: str) -> str:
    """The cast of a text, or of what a cast to a time gave, that minds the offset."""
    return f"CAST(CAST(({sql}) AS TIMESTAMPTZ) AS {sql_type})"


def casts_in_utc(db: duckdb.DuckDBPyConnection, query: str) -> str:
    """`query` with every cast to a time by way of one that minds the offset: of a text, and harmless to what is a time already.

    What cannot be parsed comes back as it is; binding it names what is wrong.
    """
    if "cast" not in query.lower() and "::" not in query:
        return query
    inserted = []  # place, order among those of one place, text
    for start, end, cast in _casts(_parsed(db, query)):
        # Of casts that begin together the longest is the outermost, and of those that end together the shortest the innermost.
        inserted += [(start, 1, -end, f"{cast}("), (end, 0, -start, " AS TIMESTAMPTZ)")]
    written, changed = query.encode(), b""
    done = 0
    for place, _, _, word in sorted(inserted):
        changed += written[done:place] + word.encode()
        done = place
    return (changed + written[done:]).decode()


def names_alone(db: duckdb.DuckDBPyConnection, query: str, name: str) -> bool:
    """Whether `query` has `name` as a column of its own, not behind a dot or within a text."""
    return any(
        [part.lower() for part in node.get("column_names", ())] == [name]
        for node in _nodes(_parsed(db, query))
    )


def _casts(parsed: Any) -> Iterator[tuple[int, int, str]]:
    """First and last byte of what is cast to a time, and the word for it."""
    for node in _nodes(parsed):
        if node.get("type") != "OPERATOR_CAST":
            continue
        kind, child = str(node["type_expr"].get("type_name", "")).upper(), node["child"]
        length = child.get("query_location_length", 0)
        # Of `x::VARCHAR::DATE` DuckDB says where `::VARCHAR` is, not what it casts; a constant has no offset to lose.
        if kind in _TIMES and length and child["type"] not in ("OPERATOR_CAST", "VALUE_CONSTANT"):
            start = child["query_location"]
            yield start, start + length, "TRY_CAST" if node["try_cast"] else "CAST"


def _parsed(db: duckdb.DuckDBPyConnection, query: str) -> Any:
    ((found,),) = db.execute(f"SELECT json_serialize_sql({text(query)})").fetchall()
    return json.loads(found)


def _nodes(node: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(node, dict):
        yield node
        for child in node.values():
            yield from _nodes(child)
    elif isinstance(node, list):
        for child in node:
            yield from _nodes(child)
