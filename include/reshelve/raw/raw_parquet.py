"""Parquet files whose schemas differ, read as one: values keep the types that the files say."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import duckdb

from reshelve.clickstream.database import RawFileError, column, text
from reshelve.logs import logger
from reshelve.raw.null_strings import without
from reshelve.raw.raw_csv import typed
from reshelve.raw.raw_format import RawFormat
from reshelve.raw.reader_options import ReaderOptions

_FLOATS = {"FLOAT", "DOUBLE"}
_INTEGERS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"}


def parquet_query(
    db: duckdb.DuckDBPyConnection, files: Sequence[Path], options: ReaderOptions, filename: str | None = None
) -> str:
    """Parquet files of one schema are read together; of several, each column has the type that holds all of them.

    A column that is an integer elsewhere and a float here, with nothing behind the point, is the integer: one NULL makes a
    float of a column for pandas, and 412 and 412.0 would be two ids.
    """
    further = f", filename = {text(filename)}" if filename else ""
    schemas = []
    for path in files:
        described = db.execute(f"DESCRIBE SELECT * FROM {_parquet([path], '')}").fetchall()
        schemas.append((path, tuple((row[0], row[1]) for row in described)))
    groups = [
        ([path for path, _ in group], dict(schema))
        for schema, group in itertools.groupby(schemas, lambda found: found[1])
    ]
    whole = [_whole(db, paths, schema, [other for _, other in groups]) for paths, schema in groups]
    (one, *_), first = groups[0][0], {**groups[0][1], **whole[0]}
    for ((other, *_), schema), integers in zip(groups[1:], whole[1:], strict=True):
        _compare(one.name, first, other.name, {**schema, **integers}, options)
    selects = []
    for (paths, schema), integers in zip(groups, whole, strict=True):
        told = options.model_copy(update={"types": {**integers, **options.types}})
        rows = without(db, f"SELECT * FROM {_parquet(paths, further)}", options.null_strings)
        selects.append(f"SELECT {typed(list(schema), told)} FROM ({rows})")
    return " UNION ALL BY NAME ".join(selects)


def _whole(
    db: duckdb.DuckDBPyConnection,
    files: Sequence[Path],
    schema: Mapping[str, str],
    others: Sequence[Mapping[str, str]],
) -> dict[str, str]:
    """The columns of `files` that are floats without anything behind the point, and integers in other files → BIGINT."""
    found = {}
    for name, kind in schema.items():
        if kind in _FLOATS and any(other.get(name) in _INTEGERS for other in others):
            value = column(name)
            fits = f"isfinite({value}) AND {value} = trunc({value}) AND abs({value}) < 9007199254740992"
            ((all_fit,),) = db.execute(
                f"SELECT coalesce(bool_and({fits}), true) FROM {_parquet(files, '')} WHERE {value} IS NOT NULL"
            ).fetchall()
            if all_fit:
                found[name] = "BIGINT"
    return found


def _parquet(files: Sequence[Path], further: str) -> str:
    return f"read_parquet([{', '.join(map(text, files))}], hive_types_autocast = false{further})"


def _compare(
    one: str, first: Mapping[str, str], other: str, second: Mapping[str, str], options: ReaderOptions
) -> None:
    """Refuse another schema, or warn where a type changes: 412 and 412.0 are two ids once they are text."""
    if not options.union_by_name and first.keys() != second.keys():
        columns = ", ".join(sorted(first.keys() ^ second.keys()))
        raise RawFileError(f"{one} and {other} have different columns: {columns} (union_by_name is false)")
    given = {name.lower() for name in options.types}
    for name in first.keys() & second.keys():
        both_integers = {first[name], second[name]} <= _INTEGERS
        if first[name] != second[name] and not both_integers and name.lower() not in given:
            logger(stage="land").warning(
                f"column {name} is {first[name]} in {one} and {second[name]} in {other}: options.types says which to read"
            )


PARQUET = RawFormat(
    "parquet", "a Parquet file", (".parquet", ".pq"), parquet_query, frozenset({"null_strings", "types", "union_by_name"}),
    is_text=False,
)  # fmt: skip
