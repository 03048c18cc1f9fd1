"""Raw files as one query, whatever their format: values come out as they are written, and faults name file and line."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

import duckdb

from reshelve.clickstream.database import RawFileError, column, reason, text
from reshelve.clickstream.null_strings import without
from reshelve.clickstream.raw_csv import csv_query, typed
from reshelve.clickstream.raw_json import json_objects, json_query
from reshelve.clickstream.reader_options import FileFormat, ReaderOptions
from reshelve.logs import logger

_FILE = "_raw_file"  # a column that no shop has
_FLOATS = {"FLOAT", "DOUBLE"}
_INTEGERS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"}
_UTF8 = {"utf-8", "utf8", "utf_8", "utf-8-sig", "ascii"}
_REJECTS = ", store_rejects = true, rejects_table = 'raw_errors', rejects_scan = 'raw_scans'"


@dataclass(frozen=True)
class RawFiles:
    """Files of one format that can be read. `query` gives all their rows, in the order of the files."""

    db: duckdb.DuckDBPyConnection
    files: tuple[Path, ...]
    file_format: FileFormat
    options: ReaderOptions
    query: str
    columns: tuple[str, ...]
    names: Mapping[str, str] = field(default_factory=dict)  # of files in another encoding: our copy → theirs

    def check(self) -> None:
        """Read every value. Raises RawFileError where a file is damaged."""
        try:
            self.db.execute(f"SELECT max(hash(COLUMNS(*))) FROM ({self.query})").fetchall()
        except duckdb.Error as error:
            raise RawFileError(self.said(error)) from error

    def without_types(self) -> RawFiles:
        """The same files, as if `options.types` named none."""
        options = self.options.model_copy(update={"types": {}})
        made = replace(self, options=options)
        query = _query(made)
        columns = [row[0] for row in self.db.execute(f"DESCRIBE {query}").fetchall()]
        return replace(made, query=query, columns=tuple(columns))

    def said(self, error: Exception) -> str:
        """What a reader says, with the names that the files have for whoever wrote them, and the line at fault."""
        message = reason(error)
        for ours, theirs in self.names.items():
            message = message.replace(ours, theirs)
        if self.file_format == "json" and "Malformed JSON" in message:  # DuckDB counts its lines otherwise
            for path in self.files:
                for line, problem in _broken_lines(path):
                    return f"{self._name(path)}: line {line}: {problem}"
        return message

    def rejects(self) -> list[str]:
        """The rows that were left out because they cannot be read: file, line and reason of each."""
        if not self.options.max_rejects:
            return []
        if self.file_format == "json":
            return [
                f"{self._name(path)}: {problem}" for path in self.files for problem in self._left_out(path)
            ]
        rows = self.db.execute(
            "SELECT file_path, line, min(error_message) FROM raw_errors JOIN raw_scans USING (scan_id, file_id)"
            f" WHERE file_path IN ({', '.join(map(text, self.files))}) GROUP BY ALL ORDER BY ALL"
        ).fetchall()
        return [
            f"{self._name(Path(path))}: line {line}: {problem.partition(chr(10))[0]}"
            for path, line, problem in rows
        ]

    def _left_out(self, path: Path) -> Iterator[str]:
        """The lines of a JSON file that DuckDB left out: it counts those that are not blank."""
        rows = self.db.execute(
            f"SELECT place FROM (SELECT json, row_number() OVER () AS place FROM {json_objects([path], self.options)})"
            " WHERE json IS NULL ORDER BY place"
        ).fetchall()
        if not rows:
            return
        with _binary(path) as file:
            lines = [number for number, line in enumerate(file, 1) if line.strip()]
        reasons = dict(_broken_lines(path))
        for (place,) in rows:
            yield f"line {lines[place - 1]}: {reasons.get(lines[place - 1], 'no JSON')}"

    def first(self, rows: Callable[[str], str], condition: str) -> str:
        """Where the first row is for which `condition` holds, as `row 17 of clicks.csv`; "" where that is not to be said.

        `rows` makes what the condition is about of the name of a table of raw rows, as a mapping's `rows` do.
        """
        numbered = f"SELECT *, row_number() OVER () AS _raw_row FROM ({_located(self)})"
        try:
            self.db.execute(f"CREATE OR REPLACE TEMP VIEW raw_located AS {numbered}")
            found = self.db.execute(
                f"SELECT {_FILE}, min(_raw_row) AS place FROM {rows('raw_located')} AS source"
                f" WHERE {condition} GROUP BY ALL ORDER BY place LIMIT 1"
            ).fetchall()
            if not found:
                return ""
            ((before,),) = self.db.execute(
                f"SELECT count(*) FROM raw_located WHERE {_FILE} = $1 AND _raw_row < $2", list(found[0])
            ).fetchall()
        except duckdb.Error:
            return ""
        return f"row {before + 1} of {self._name(Path(found[0][0]))}"

    def counted_by_file(self, rows: Callable[[str], str], value: str) -> list[tuple[Path, date, int]]:
        """How many rows of each file have which `value`, a day; none where `rows` (as `first` has it) keeps no file."""
        self.db.execute(f"CREATE OR REPLACE TEMP VIEW raw_located AS {_located(self)}")
        try:
            found = self.db.execute(
                f"SELECT {_FILE}, {value} AS value, count(*) FROM {rows('raw_located')} AS source"
                " GROUP BY ALL HAVING value IS NOT NULL ORDER BY ALL"
            ).fetchall()
        except duckdb.BinderException:
            return []
        return [(Path(self._name(Path(path))), day, count) for path, day, count in found]

    def _name(self, path: Path) -> str:
        return self.names.get(str(path), str(path))


def open_raw(
    db: duckdb.DuckDBPyConnection,
    files: Sequence[Path],
    file_format: FileFormat,
    options: ReaderOptions,
    scratch: Path,
) -> RawFiles:
    """`files` ready to be read. A column of `options.types` that no file has is NULL.

    Files in another encoding than UTF-8 are written anew below `scratch`. Raises RawFileError, which says what is wrong.
    """
    names: dict[str, str] = {}
    if file_format != "parquet" and options.encoding.lower() not in _UTF8:
        copies = [_as_utf8(path, options.encoding, scratch, n) for n, path in enumerate(files)]
        names = {str(copy): str(path) for copy, path in zip(copies, files, strict=True)}
        files = copies
    made = RawFiles(db, tuple(files), file_format, options, "", (), names)
    try:
        query = _query(made)
        found = [row[0] for row in db.execute(f"DESCRIBE {query}").fetchall()]
    except duckdb.Error as error:
        raise RawFileError(made.said(error)) from error
    known = {name.lower() for name in found}
    missing = {name: kind for name, kind in options.types.items() if name.lower() not in known}
    if missing:
        unknown = ", ".join(f"CAST(NULL AS {kind}) AS {column(name)}" for name, kind in missing.items())
        query = f"SELECT *, {unknown} FROM ({query})"
    return replace(made, query=query, columns=(*found, *missing))


def _query(raw: RawFiles, *, located: bool = False) -> str:
    if raw.file_format == "json":
        return json_query(raw.db, raw.files, raw.options, filename=_FILE if located else None)
    further = f", filename = {text(_FILE)}" if located else ""
    if raw.file_format == "csv":
        return csv_query(
            raw.db, raw.files, raw.options, further + (_REJECTS if raw.options.max_rejects else "")
        )
    return _parquet_query(raw.db, raw.files, raw.options, further)


def _located(raw: RawFiles) -> str:
    """The rows of `raw` with the name of their file."""
    missing = [name for name in raw.options.types if name in raw.columns]
    query = _query(raw, located=True)
    found = {row[0].lower() for row in raw.db.execute(f"DESCRIBE {query}").fetchall()}
    unknown = [
        f"CAST(NULL AS {raw.options.types[name]}) AS {column(name)}"
        for name in missing
        if name.lower() not in found
    ]
    return f"SELECT {', '.join(['*', *unknown])} FROM ({query})"


def _parquet_query(
    db: duckdb.DuckDBPyConnection, files: Sequence[Path], options: ReaderOptions, further: str
) -> str:
    """Parquet files of one schema are read together; of several, each column has the type that holds all of them.

    A column that is an integer elsewhere and a float here, with nothing behind the point, is the integer: one NULL makes a
    float of a column for pandas, and 412 and 412.0 would be two ids.
    """
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


def _as_utf8(path: Path, encoding: str, scratch: Path, number: int) -> Path:
    folders = [part for part in path.parts if "=" in part]  # `dt=2011-08-01` is a column
    copy = scratch.joinpath(f"utf8-{number}", *folders, path.name.removesuffix(".gz"))
    copy.parent.mkdir(parents=True)
    done = 0
    try:
        with _binary(path) as raw, copy.open("w", encoding="utf-8", newline="") as out:
            for line in io.TextIOWrapper(raw, encoding=encoding, newline=""):
                out.write(line)
                done += 1
    except UnicodeDecodeError as error:
        place = done + 1 + error.object[: error.start].count(b"\n")
        raise RawFileError(f"{path} is not {encoding} encoded: line {place}: {error.reason}") from error
    except (OSError, EOFError) as error:
        raise RawFileError(f"{path} cannot be read: {error}") from error
    return copy


@contextmanager
def _binary(path: Path) -> Iterator[gzip.GzipFile | io.BufferedReader]:
    with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as file:
        yield file


def _broken_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file of JSON lines that hold no JSON, and why. None where it is no such file."""
    try:
        with _binary(path) as file:
            for number, line in enumerate(file, 1):
                try:
                    if line.strip():
                        json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
                except UnicodeDecodeError as error:
                    yield number, f"not utf-8 encoded (byte {error.start + 1})"
                except json.JSONDecodeError as error:
                    if number == 1 and error.pos >= len(line.decode().rstrip()):
                        return  # a list, or objects over several lines
                    yield number, f"{error.msg} (character {error.pos + 1})"
                except (RecursionError, ValueError) as error:
                    yield number, str(error)
    except (OSError, EOFError, zlib.error):
        return  # damaged as a whole, as DuckDB says
