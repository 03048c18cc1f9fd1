"""Open a partition's files for judging, and say in plain words what is wrong where that fails.

A partition is any number of Parquet files, CSV and JSON-lines files (gzip or not). Those that are not Parquet
are turned into Parquet beside the judgement first, every row of them: a row that cannot be read stops the day.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from reshelve.clickstream.database import EVENT_TYPES, RawFileError, column, reader
from reshelve.clickstream.faults import reason
from reshelve.raw.formats import format_of, known_endings
from reshelve.raw.local_files import check_parquet, local_path, plain_name
from reshelve.raw.parsed import in_utc
from reshelve.raw.raw_files import open_raw
from reshelve.raw.raw_parquet import PARQUET
from reshelve.raw.reader_options import ReaderOptions
from reshelve.validation.engine import RECEIVED, row_count
from reshelve.validation.rules import Columns, Readable


class UnreadableError(Exception):
    """A file that cannot be judged. `rule`: the kind of rule that this breaks."""

    def __init__(self, message: str, rule: type[Readable] | type[Columns]) -> None:
        super().__init__(message)
        self.rule = rule


@dataclass(frozen=True)
class Landed:
    """A partition that can be opened: whole Parquet files, their columns with DuckDB types, their rows."""

    files: tuple[Path, ...]
    columns: dict[str, str]
    rows: int

    @property
    def extra(self) -> tuple[str, ...]:
        """The columns that are no event columns."""
        return tuple(name for name in self.columns if name not in EVENT_TYPES)


def open_landed(db: duckdb.DuckDBPyConnection, files: Sequence[Path], scratch: Path) -> Landed:
    """Make the view `landed` over `files`.

    Raises UnreadableError for a file that is empty, damaged or of no known format, or whose event columns are
    not those of the first. Further columns may differ from file to file.
    """
    parquet = [_parquet(db, path, scratch / f"landed-{number}", number) for number, path in enumerate(files)]
    columns: dict[str, str] = {}
    further: dict[str, str] = {}
    for path, original in zip(parquet, files, strict=True):
        found = _columns(db, path, original)
        events = {name: kind for name, kind in found.items() if name in EVENT_TYPES}
        if columns and events != columns:
            raise UnreadableError(
                f"{original.name} has other columns than {files[0].name}: {_difference(columns, events)}",
                Columns,
            )
        columns = events
        further |= {name: kind for name, kind in found.items() if name not in EVENT_TYPES}
    named = ", ".join(column(name) for name in columns) or "count(*) AS none"
    db.execute(f"CREATE VIEW landed AS SELECT {named} FROM {reader(parquet)}")
    rows = sum(row_count(path) for path in parquet)
    return Landed(tuple(parquet), columns | further, rows)


def read_whole(db: duckdb.DuckDBPyConnection, files: Sequence[Path]) -> None:
    """Read every value of every file. Raises UnreadableError naming the file that is damaged."""
    for path in files:
        try:
            db.execute(f"SELECT max(hash(COLUMNS(*))) FROM {reader([path])}").fetchall()
        except duckdb.Error as error:
            raise UnreadableError(
                f"{path.name} is damaged: {_said(reason(error), path)}", Readable
            ) from error


def _parquet(db: duckdb.DuckDBPyConnection, path: Path, scratch: Path, number: int) -> Path:
    """`path` by a name that is no pattern, or what it holds as a Parquet file in the new folder `scratch`."""
    kind = format_of(path)
    if kind is None:
        raise UnreadableError(
            f"{path.name} has an unsupported format: {', '.join(known_endings())}", Readable
        )
    if path.stat().st_size == 0:
        raise UnreadableError(f"{path.name} is empty (0 bytes); expected {kind.called}", Readable)
    scratch.mkdir()
    if kind is PARQUET:
        return _checked(db, path, local_path(path, scratch, number))
    made = scratch / f"{plain_name(path.name, number)}.parquet"
    try:
        raw = open_raw(db, [path], kind.name, ReaderOptions(), scratch)
    except RawFileError as error:
        raise UnreadableError(
            f"{path.name} is not {kind.called}: {_said(str(error), path)}", Readable
        ) from error
    typed = [f"{_cast(name)} AS {column(name)}" for name in raw.columns]
    rows = f"SELECT {', '.join(typed)} FROM ({raw.query}) AS raw"
    try:
        schema = db.sql(f"{rows} LIMIT 0").to_arrow_table().schema
        with pq.ParquetWriter(made, schema) as writer:
            for batch in db.cursor().sql(rows).to_arrow_reader(122_880):
                writer.write_table(pa.Table.from_batches([batch]))
    except duckdb.ConversionException as error:
        raise UnreadableError(
            f"{path.name} has a value that does not fit its column: {_said(raw.said(error), path)}", Columns
        ) from error
    except (duckdb.Error, pa.ArrowException) as error:
        raise UnreadableError(f"{path.name} is damaged: {_said(raw.said(error), path)}", Readable) from error
    return made


def _checked(db: duckdb.DuckDBPyConnection, path: Path, local: Path) -> Path:
    """`local`, if it is a Parquet file and does not hold too much."""
    try:
        check_parquet(db, path, local)
    except RawFileError as error:
        raise UnreadableError(_said(str(error), path), Readable) from error
    except duckdb.Error as error:
        raise _no_parquet(path, error) from error
    return local


def _no_parquet(path: Path, error: duckdb.Error) -> UnreadableError:
    said = _said(reason(error), path)
    return UnreadableError(
        f"{path.name} is not a complete Parquet file (truncated or damaged): {said}", Readable
    )


def _cast(name: str) -> str:
    """A column of text as what an event has there; text where an event has none of that name."""
    sql_type = {**EVENT_TYPES, RECEIVED: "TIMESTAMP"}.get(name, "VARCHAR")
    if sql_type == "TIMESTAMP":
        return in_utc(column(name), sql_type)
    return f"CAST({column(name)} AS {sql_type})"


def _said(reason: str, path: Path) -> str:
    """The reader's reason, with the file's name for its path."""
    return reason.replace(str(path), path.name)


def _columns(db: duckdb.DuckDBPyConnection, path: Path, original: Path) -> dict[str, str]:
    try:
        rows = db.execute(f"DESCRIBE SELECT * FROM {reader([path])}").fetchall()
    except duckdb.Error as error:
        raise _no_parquet(original, error) from error
    return {row[0]: row[1] for row in rows}


def _difference(one: dict[str, str], other: dict[str, str]) -> str:
    names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    return (
        ", ".join(f"{name} {other.get(name, 'missing')} instead of {one.get(name, 'none')}" for name in names)
        or "another order"
    )
