"""Texts that stand for NULL (`(not set)`), wherever they are written: in a column, an object or a list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import duckdb

from reshelve.clickstream.database import column, text


def without(db: duckdb.DuckDBPyConnection, query: str, null_strings: Sequence[str]) -> str:
    """`query` with NULL for every text of `null_strings`; keys of objects and of maps stay as they are."""
    if not null_strings:
        return query
    made, listed = db.sql(query), ", ".join(map(text, null_strings))
    changes = [
        f"{changed} AS {column(name)}"
        for name, kind in zip(made.columns, made.types, strict=True)
        if (changed := _changed(column(name), kind, listed))
    ]
    return f"SELECT * REPLACE ({', '.join(changes)}) FROM ({query})" if changes else query


def _changed(sql: str, kind: Any, listed: str, depth: int = 0) -> str:
    """The SQL of a value without those texts; "" where it can hold none."""
    if kind.id == "varchar" and str(kind) == "VARCHAR":
        return f"CASE WHEN {sql} IN ({listed}) THEN NULL ELSE {sql} END"
    each = f"each_{depth}"
    match kind.id:
        case "struct":
            inner = {
                name: _changed(f"{sql}.{column(name)}", child, listed, depth) for name, child in kind.children
            }
            if not any(inner.values()):
                return ""
            fields = [f"{column(name)} := {made or f'{sql}.{column(name)}'}" for name, made in inner.items()]
            return f"CASE WHEN {sql} IS NOT NULL THEN struct_pack({', '.join(fields)}) END"
        case "list":
            made = _changed(each, dict(kind.children)["child"], listed, depth + 1)
            return f"list_transform({sql}, lambda {each}: {made})" if made else ""
        case "map":
            made = _changed(f"{each}.value", dict(kind.children)["value"], listed, depth + 1)
            entry = f"struct_pack(key := {each}.key, value := {made})"
            return (
                f"map_from_entries(list_transform(map_entries({sql}), lambda {each}: {entry}))"
                if made
                else ""
            )
    return ""
