"""DuckDB as this project opens it: bounded memory, spilling to a real disk, no extension fetched from a network."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from reshelve.clickstream.events import EVENT_SCHEMA

_MEMORY = "2GB"
_BATCH = 122_880  # rows: one row group

_SQL_TYPES = {
    pa.string(): "VARCHAR",
    pa.timestamp("us"): "TIMESTAMP",
    pa.int64(): "BIGINT",
    pa.float64(): "DOUBLE",
}

EVENT_TYPES: dict[str, str] = {field.name: _SQL_TYPES[field.type] for field in EVENT_SCHEMA}
"""EVENT_SCHEMA's columns with their DuckDB types, in order."""


def connect(path: str | Path = ":memory:", spill: Path | None = None) -> duckdb.DuckDBPyConnection:
    """Open a database file, or one in memory. Larger work spills into `spill`, by default beside the file.

    Insertion order is kept, so that one input always gives the same Parquet bytes. All connections of
    this process to one file share one instance, so they must be opened by this function alone.
    """
    connection = duckdb.connect(
        str(path),
        config={
            "memory_limit": _MEMORY,
            "temp_directory": str(spill or Path(path).with_suffix(".spill")),
            "autoinstall_known_extensions": False,
        },
    )
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET enable_progress_bar = false")
    return connection


@contextmanager
def database(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """`connect(path)` for one block of work."""
    connection = connect(path)
    try:
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


def write_parquet(db: duckdb.DuckDBPyConnection, query: str, path: Path, schema: pa.Schema) -> int:
    """Stream `query` into a Parquet file of exactly `schema`; returns its rows.

    DuckDB's own COPY marks a column without NULLs as required, so two days would have two schemas.
    """
    rows = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        # A cursor of its own: a connection gives out one result at a time.
        for batch in db.cursor().sql(query).to_arrow_reader(_BATCH):
            writer.write_table(pa.Table.from_batches([batch]).cast(schema))
            rows += batch.num_rows
    return rows


def column(name: str) -> str:
    """`name` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def reason(error: Exception) -> str:
    """DuckDB's message in one line, without its kind and its drawing of the statement."""
    return re.sub(r"^[A-Z][A-Za-z ]* Error: ", "", str(error).strip().splitlines()[0])
