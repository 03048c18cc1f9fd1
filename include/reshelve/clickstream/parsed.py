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
_PLACES = {"COLUMN_REF", "ARRAY_EXTRACT", "STRUCT_EXTRACT"}  # what is cast: a raw column, or a part of one


def in_utc(sql: str, sql_type: str) -> str:
    """The cast of a text, or of what a cast to a time gave, that minds the offset."""
    return f"CAST(CAST(({sql}) AS TIMESTAMPTZ) AS {sql_type})"


def casts_in_utc(db: duckdb.DuckDBPyConnection, query: str) -> str:
    """`query` with every cast of a raw column to a time by way of one that minds the offset.

    What cannot be parsed comes back as it is; binding it names what is wrong.
    """
    if "cast" not in query.lower() and "::" not in query:
        return query
    changed = query.encode()
    for start, end, cast in sorted(_casts(_parsed(db, query)), reverse=True):
        changed = b"%b%s(%b AS TIMESTAMPTZ)%b" % (
            changed[:start],
            cast.encode(),
            changed[start:end],
            changed[end:],
        )
    return changed.decode()


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
        if kind in _TIMES and child["type"] in _PLACES and length:
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
