"""Open a partition's Parquet files for judging, and say in plain words what is wrong where that fails."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb

from reshelve.clickstream.database import reader, reason
from reshelve.clickstream.rules import Columns, Readable


class UnreadableError(Exception):
    """A file that cannot be judged. `rule`: the kind of rule that this breaks."""

    def __init__(self, message: str, rule: type[Readable] | type[Columns]) -> None:
        super().__init__(message)
        self.rule = rule


def open_landed(db: duckdb.DuckDBPyConnection, files: Sequence[Path]) -> dict[str, str]:
    """Make the view `landed` over `files`; returns its columns and their DuckDB types.

    Raises UnreadableError for a file that is empty or no whole Parquet file, or has other columns than the first.
    """
    columns: dict[str, str] = {}
    for path in files:
        found = _columns(db, path)
        if columns and found != columns:
            raise UnreadableError(
                f"{path.name} has other columns than {files[0].name}: {_difference(columns, found)}", Columns
            )
        columns = found
    db.execute(f"CREATE VIEW landed AS SELECT * FROM {reader(files)}")
    return columns


def read_whole(db: duckdb.DuckDBPyConnection, files: Sequence[Path]) -> None:
    """Read every value of every file. Raises UnreadableError naming the file that is damaged."""
    for path in files:
        try:
            db.execute(f"SELECT max(hash(COLUMNS(*))) FROM {reader([path])}").fetchall()
        except duckdb.Error as error:
            raise UnreadableError(f"{path.name} is damaged: {reason(error)}", Readable) from error


def _columns(db: duckdb.DuckDBPyConnection, path: Path) -> dict[str, str]:
    if path.stat().st_size == 0:
        raise UnreadableError(f"{path.name} is empty (0 bytes); expected a Parquet file", Readable)
    try:
        rows = db.execute(f"DESCRIBE SELECT * FROM {reader([path])}").fetchall()
    except duckdb.Error as error:
        said = reason(error).replace(str(path), path.name)
        raise UnreadableError(
            f"{path.name} is no whole Parquet file (truncated or damaged): {said}", Readable
        ) from error
    return {row[0]: row[1] for row in rows}


def _difference(one: dict[str, str], other: dict[str, str]) -> str:
    names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    return (
        ", ".join(f"{name} {other.get(name, 'missing')} instead of {one.get(name, 'none')}" for name in names)
        or "another order"
    )
