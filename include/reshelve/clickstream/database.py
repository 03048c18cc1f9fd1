"""DuckDB as this project opens it: bounded memory, spilling to a real disk, no extension fetched from a network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa

from reshelve.clickstream.events import EVENT_SCHEMA

_MEMORY = "2GB"

_SQL_TYPES = {
    pa.string(): "VARCHAR",
    pa.timestamp("us"): "TIMESTAMP",
    pa.int64(): "BIGINT",
    pa.float64(): "DOUBLE",
}

EVENT_TYPES: dict[str, str] = {field.name: _SQL_TYPES[field.type] for field in EVENT_SCHEMA}
"""EVENT_SCHEMA's columns with their DuckDB types, in order."""


@contextmanager
def database(directory: Path, name: str = ":memory:") -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection that spills into `directory`; `name` is a database file there, or in memory.

    Insertion order is kept, so that one input always gives the same Parquet bytes.
    """
    connection = duckdb.connect(
        name if name == ":memory:" else str(directory / name),
        config={
            "memory_limit": _MEMORY,
            "temp_directory": str(directory / "spill"),
            "autoinstall_known_extensions": False,
        },
    )
    try:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET enable_progress_bar = false")
        yield connection
    finally:
        connection.close()


def text(value: object) -> str:
    """`value` as an SQL string literal."""
    return "'" + str(value).replace("'", "''") + "'"


def reader(files: Iterable[Path], file_format: str = "parquet") -> str:
    """The table function that reads `files`."""
    listed = ", ".join(text(path) for path in files)
    return f"read_{file_format}([{listed}])"


def reason(error: Exception) -> str:
    """DuckDB's message without its kind and its drawing of the statement: one line."""
    first = str(error).strip().splitlines()[0]
    kind, found, message = first.partition(" Error: ")
    return (
        message if found and " " not in kind.strip() or kind in ("Invalid Input", "Out of Range") else first
    )
