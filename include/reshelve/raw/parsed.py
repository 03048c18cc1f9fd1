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

# All that is no number (whole strings, so that digits within them stay), then a number, or nothing at the very end.
_NUMBER = r"""((?:"(?:[^"\\]|\\.)*"|[^"0-9-]|-[A-Za-z])*)(-?[0-9][0-9.eE+-]*)?"""
_GLUED = {"concat": "_glued", "concat_ws": "_glued_ws"}
_MOST_PARTS = 20  # of an id
_TIMES = {"DATE", "DATETIME", "TIMESTAMP", "TIMESTAMP_MS", "TIMESTAMP_NS", "TIMESTAMP_S", "TIMESTAMP_US"}


def cast_of_text(sql: str, sql_type: str) -> str:
    """The cast of a text to a type: by way of UTC where that is a time, with numbers as they are written where it is JSON."""
    if sql_type.upper() == "JSON":
        return f"CAST({exact_json(sql)} AS JSON)"
    return in_utc(sql, sql_type) if sql_type.upper() in _TIMES else f"CAST({sql} AS {sql_type})"


def exact_json(sql: str) -> str:
    """A text of JSON with its numbers in quotes: every parser at hand makes 1.1 of `1.10` and 120000.0 of `12E4`."""
    return f"left(regexp_replace({sql}, {text(_NUMBER)}, '\\1\"\\2\"', 'g'), -2)"


def make_glue(db: duckdb.DuckDBPyConnection) -> None:
    """The functions that `glued` writes."""
    for name, first in (("_glued", 1), ("_glued_ws", 2)):
        makes = []
        for count in range(first, _MOST_PARTS + 1):
            given = [f"p{number}" for number in range(count)]
            parts = [f"CAST({part} AS VARCHAR)" for part in given]
            between = " || " if name == "_glued" else f" || {parts.pop(0)} || "
            makes.append(f"({', '.join(given)}) AS {between.join(parts)}")
        db.execute(f"CREATE OR REPLACE TEMP MACRO {name}{', '.join(makes)}")


def glued(db: duckdb.DuckDBPyConnection, query: str) -> str:
    """`query` with `concat` and `concat_ws` unknown where a part is: they leave NULL out, and whoever is not known would
    all have the id `/`."""
    if "concat" not in query.lower():
        return query
    written = query.encode()
    found = [
        (node["query_location"], name)
        for node in nodes(tree(db, query))
        if (name := str(node.get("function_name", "")).lower()) in _GLUED
        and len(node.get("arguments", ())) <= _MOST_PARTS
    ]
    for place, name in sorted(found, reverse=True):
        if written[place : place + len(name)].lower() == name.encode():  # not `a.concat(b)`
            written = written[:place] + _GLUED[name].encode() + written[place + len(name) :]
    return written.decode()


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
    for start, end, cast in _casts(tree(db, query)):
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
        [part.lower() for part in node.get("column_names", ())] == [name] for node in nodes(tree(db, query))
    )


def _casts(parsed: Any) -> Iterator[tuple[int, int, str]]:
    """First and last byte of what is cast to a time, and the word for it."""
    for node in nodes(parsed):
        if node.get("type") != "OPERATOR_CAST":
            continue
        kind, child = str(node["type_expr"].get("type_name", "")).upper(), node["child"]
        length = child.get("query_location_length", 0)
        # Of `x::VARCHAR::DATE` DuckDB says where `::VARCHAR` is, not what it casts; a constant has no offset to lose.
        if kind in _TIMES and length and child["type"] not in ("OPERATOR_CAST", "VALUE_CONSTANT"):
            start = child["query_location"]
            yield start, start + length, "TRY_CAST" if node["try_cast"] else "CAST"


def tree(db: duckdb.DuckDBPyConnection, query: str) -> Any:
    """What DuckDB's parser makes of a query; `error` says whether it cannot be parsed, or is no SELECT."""
    ((found,),) = db.execute(f"SELECT json_serialize_sql({text(query)})").fetchall()
    return json.loads(found)


def nodes(node: Any) -> Iterator[Mapping[str, Any]]:
    """All objects of a parsed query."""
    if isinstance(node, dict):
        yield node
        for child in node.values():
            yield from nodes(child)
    elif isinstance(node, list):
        for child in node:
            yield from nodes(child)
