"""DuckDB as this project opens it: bounded memory, spilling to a real disk, no extension fetched or loaded."""

from __future__ import annotations

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
    """Open a database file, or one in memory. Larger work spills into `spill`, by default beside the file; in memory nowhere.

    Insertion order is kept, so that one input always gives the same Parquet bytes. All connections of
    this process to one file share one instance, so they must be opened by this function alone.
    """
    beside = "" if path == ":memory:" else Path(path).with_suffix(".spill")
    connection = duckdb.connect(
        str(path),
        config={
            "memory_limit": _MEMORY,
            "temp_directory": str(spill or beside),
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_persistent_secrets": False,  # those that a person has stored for work of their own
            "python_enable_replacements": False,  # a table that is not there is no variable of ours
        },
    )
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET enable_progress_bar = false")
    return connection


def confine(db: duckdb.DuckDBPyConnection, files: Iterable[Path], folders: Iterable[Path] = ()) -> None:
    """From now on the instance of `db` opens `files`, what is in `folders`, its own file and its spill, and nothing else.

    For statements that others have written, as mapping files hold them. It loads no extension and attaches no file, and
    none of this can be taken back: settings are locked, also for its other connections. Asking again changes nothing.
    """
    ((locked,),) = db.execute("SELECT current_setting('lock_configuration')").fetchall()
    if locked:
        return
    paths = {path for given in files for path in (given, given.resolve())}  # DuckDB minds where a link leads
    within = {f"{path}/" for given in folders for path in (given, given.resolve())}
    for name, allowed in (("allowed_paths", paths), ("allowed_directories", within)):
        db.execute(f"SET {name} = [{', '.join(text(each) for each in sorted(map(str, allowed)))}]")
    db.execute(
        "SET enable_external_access = false"
    )  # last but for the lock: what is allowed cannot change after it
    db.execute("SET lock_configuration = true")


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


# Blank, though something is written: white space of any script, and what has no width.
_BLANKS = "".join(map(chr, (*range(9, 14), 28, 29, 30, 31, 32, 133, 160, 5760, *range(8192, 8204), 8232, 8233, 8239,
                            8287, 8288, 12288, 65279)))  # fmt: skip


def is_blank(value: str) -> bool:
    """Whether `known` takes a text for none."""
    return not value.strip(_BLANKS)


def known(sql: str) -> str:
    """A text, or NULL where it is empty or blank: what nobody wrote is not known. For every engine."""
    printed = f"{sql} >= '!' AND {sql} < '~'"  # nearly every text, told by its first character
    return f"CASE WHEN {printed} THEN {sql} WHEN trim(BOTH {text(_BLANKS)} FROM {sql}) <> '' THEN {sql} END"


class RawFileError(Exception):
    """A file that cannot be read as what it is said to be."""
