"""Raw files as one query, whatever their format: values come out as they are written, and faults name file and line."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

import duckdb

from reshelve.clickstream.database import RawFileError, column
from reshelve.clickstream.faults import reason
from reshelve.raw.formats import raw_format
from reshelve.raw.local_files import (
    check_packed,
    check_parquet,
    folder_of,
    local_path,
    plain_name,
    unpacked_copies,
    without_packing,
)
from reshelve.raw.opened import unpacked
from reshelve.raw.raw_format import Fault, RawFormat
from reshelve.raw.raw_parquet import PARQUET
from reshelve.raw.reader_options import ReaderOptions

_FILE = "_raw_file"  # a column that no shop has
_UTF8 = {"utf-8", "utf8", "utf_8", "utf-8-sig", "ascii"}


@dataclass(frozen=True)
class RawFiles:
    """Files of one format that can be read. `query` gives all their rows, in the order of the files."""

    db: duckdb.DuckDBPyConnection
    files: tuple[Path, ...]
    raw_format: RawFormat
    options: ReaderOptions
    query: str
    columns: tuple[str, ...]
    names: Mapping[str, str] = field(
        default_factory=dict
    )  # our copy of a file in another encoding, or link → theirs

    def check(self) -> None:
        """Read every value. Raises RawFileError where a file is damaged."""
        try:
            self.db.execute(f"SELECT max(hash(COLUMNS(*))) FROM ({self.query})").fetchall()
        except duckdb.Error as error:
            raise RawFileError(self._at_fault(error)) from error

    def _at_fault(self, error: duckdb.Error) -> str:
        """What a reader says, with the file where it does not name it."""
        said = self.said(error)
        if any(self._name(path) in said for path in self.files):
            return said
        for path in self.files:
            try:
                self.db.execute(
                    f"SELECT max(hash(COLUMNS(*))) FROM ({_query(replace(self, files=(path,)))})"
                ).fetchall()
            except duckdb.Error:
                return f"{self._name(path)}: {said}"
        return said

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
        fault = self.raw_format.explain(self.files, message)
        return self._named(fault) if fault else message

    def rejects(self) -> list[str]:
        """The rows that were left out because they cannot be read: file, line and reason of each."""
        if not self.options.max_rejects:
            return []
        return [self._named(fault) for fault in self.raw_format.rejects(self.db, self.files, self.options)]

    def _named(self, fault: Fault) -> str:
        return f"{self._name(fault.path)}: line {fault.line}: {fault.problem}"

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
    file_format: str,
    options: ReaderOptions,
    scratch: Path,
    *,
    sample: bool = False,
) -> RawFiles:
    """`files` ready to be read; as a `sample`, their first rows, without unpacking them before.

    A column of `options.types` that no file has is NULL.
    Packed files, and those in another encoding than UTF-8, are written anew below `scratch`, and those whose names DuckDB
    would take for a pattern have a link there. Raises RawFileError, which says what is wrong.
    """
    made_of = raw_format(file_format)
    scratch.mkdir(parents=True, exist_ok=True)
    if "encoding" in made_of.options and options.encoding.lower() not in _UTF8:
        check_packed(files)
        ours = [_as_utf8(path, options.encoding, scratch, n) for n, path in enumerate(files)]
    else:
        plain = files if sample else unpacked_copies(files, scratch)
        ours = [local_path(path, scratch, n) for n, path in enumerate(plain)]
    names = {str(our): str(path) for our, path in zip(ours, files, strict=True) if our != path}
    made = RawFiles(db, tuple(ours), made_of, options, "", (), names)
    try:
        if made_of is PARQUET:
            for path, our in zip(files, ours, strict=True):
                check_parquet(db, path, our)
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
    return raw.raw_format.sql(raw.db, raw.files, raw.options, _FILE if located else None)


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


def _as_utf8(path: Path, encoding: str, scratch: Path, number: int) -> Path:
    copy = folder_of(path, scratch / f"utf8-{number}") / without_packing(plain_name(path.name, number))
    done = 0
    try:
        with unpacked(path) as raw, copy.open("w", encoding="utf-8", newline="") as out:
            for line in io.TextIOWrapper(raw, encoding=encoding, newline=""):
                out.write(line)
                done += 1
    except UnicodeDecodeError as error:
        place = done + 1 + error.object[: error.start].count(b"\n")
        raise RawFileError(f"{path} is not {encoding} encoded: line {place}: {error.reason}") from error
    except (OSError, EOFError) as error:
        raise RawFileError(f"{path} cannot be read: {error}") from error
    return copy
