"""A look at raw files that nobody has described yet: how they are written, and what their columns hold."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb

from reshelve.clickstream.database import RawFileError, database
from reshelve.clickstream.dated_files import names_days
from reshelve.errors import ConfigurationError, DataError
from reshelve.landing.column_roles import may_be_ids, may_be_types
from reshelve.raw.column_kinds import Column, known_beside, look_at, named_by
from reshelve.raw.formats import format_names, format_of, known_endings, raw_format
from reshelve.raw.raw_csv import delimiter_of
from reshelve.raw.raw_files import open_raw
from reshelve.raw.reader_options import ReaderOptions
from reshelve.scratch import scratch
from reshelve.settings import PROJECT

_SAMPLE = 50_000  # rows
_COMMON = 50  # values of a column, among which its words for NULL are
_HEAD = 1 << 20  # bytes, of which the encoding is told
_NULLS = (
    "NULL",
    "null",
    "\\N",
    "(not set)",
    "N/A",
    "n/a",
    "NA",
    "None",
    "nan",
    "NaN",
    "#N/A",
    "-",
    "--",
    "k.A.",
)
_DAY = re.compile(r"(?<!\d)(20\d\d)(-?)(\d\d)\2(\d\d)(?!\d)")


@dataclass(frozen=True)
class Look:
    """What was seen: `options` as a mapping file has them, the columns, and sentences for whoever reads the draft."""

    pattern: str
    files: tuple[Path, ...]
    file_format: str
    options: dict[str, Any]
    columns: tuple[Column, ...]
    rows: int
    notes: tuple[str, ...]

    @property
    def daily_pattern(self) -> str:
        """The pattern with a `{date}`, where every file has a day in its name; else empty."""
        found = [_DAY.search(path.name) for path in self.files]
        first = found[0]
        if first is None or not all(found):
            return ""
        form = "{date}" if first.group(2) else "{date:%Y%m%d}"
        shapes = {_DAY.sub(form, path.name, count=1) for path in self.files}
        if len(shapes) != 1:
            return ""
        return (Path(self.pattern).parent / shapes.pop()).as_posix()


def look(pattern: str, file_format: str | None = None) -> Look:
    """Read the first rows of the files that `pattern` means (relative to the project).

    Raises ConfigurationError where there are none, DataError where they cannot be read.
    """
    if names_days(pattern):
        raise ConfigurationError(
            f"--files {pattern}: a look needs files that are there",
            "write * in place of {date}: the draft says {date} where every file has a day in its name",
        )
    full = PROJECT / pattern
    files = sorted(
        path for path in Path(full.anchor).glob(str(full.relative_to(full.anchor))) if path.is_file()
    )
    if not files:
        raise ConfigurationError(f"--files: no file at {full}", f"relative to {PROJECT}, or absolute")
    chosen = file_format or _format(files[0])
    options, notes = _written(files[0], chosen) if raw_format(chosen).is_text else ({}, [])
    columns = _sampled(files, chosen, options)
    if "header" in raw_format(chosen).options and (nulls := _nulls(columns)):
        options = {**options, "null_strings": nulls}
        notes = [*notes, f"{', '.join(nulls)} read as unknown"]
        columns = _sampled(files, chosen, options)
    rows = columns[0].rows if columns else 0
    if not rows:
        raise DataError(f"{files[0]} holds no row", "expected a header and rows")
    return Look(pattern, tuple(files), chosen, options, columns, rows, tuple(notes))


def _sampled(files: Sequence[Path], file_format: str, options: dict[str, Any]) -> tuple[Column, ...]:
    """The columns of the first rows."""
    with scratch("look") as directory, database(directory / "look.duckdb") as db:
        try:
            raw = open_raw(db, files, file_format, ReaderOptions(**options), directory, sample=True)
            db.execute(f"CREATE TABLE raw_rows AS SELECT * FROM ({raw.query}) LIMIT {_SAMPLE}")
        except RawFileError as error:
            raise DataError(f"{files[0]} cannot be read as {file_format}: {error}") from error
        except duckdb.Error as error:
            raise DataError(f"{files[0]} cannot be read as {file_format}", raw.said(error)) from error
        seen = [look_at(db, "raw_rows", name) for name in raw.columns]
        return tuple(_with_others(db, one, seen) for one in seen)


def _with_others(db: duckdb.DuckDBPyConnection, one: Column, seen: Sequence[Column]) -> Column:
    """A column, with what its values say of the others: those of kinds of events, and those of titles."""
    names = [other.name for other in seen]
    if may_be_types(one):
        one = replace(one, beside=known_beside(db, "raw_rows", one.name, names))
    if one.is_prose:
        ids = [other.name for other in seen if may_be_ids(other) and other.name != one.name]
        one = replace(one, names=named_by(db, "raw_rows", one.name, ids))
    return one


def _format(path: Path) -> str:
    found = format_of(path)
    if found is None:
        raise ConfigurationError(
            f"{path}: what are these files?",
            f"say --format {', '.join(format_names())} (known by their names: {' '.join(known_endings())})",
        )
    return found.name


def _written(path: Path, file_format: str) -> tuple[dict[str, Any], list[str]]:
    """The reader's options of a file of text, and what is to be said of them."""
    try:
        with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as file:
            head = file.read(_HEAD)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}", "expected a whole file") from error
    options: dict[str, Any] = {}
    notes = []
    encoding = _encoding(head)
    if encoding != "utf-8":
        options["encoding"] = encoding
        notes.append(f"no UTF-8; read as {encoding}: look whether umlauts and accents are right")
    if "header" in raw_format(file_format).options:
        lines = io.StringIO(
            head.decode("utf-8-sig" if encoding == "utf-8" else encoding, errors="replace")
        ).readlines()
        try:
            _header(lines[:-1] or lines, options, notes)
        except csv.Error as error:
            raise DataError(f"{path} cannot be read as csv: {error}", "expected a header and rows") from error
    return options, notes


def _encoding(head: bytes) -> str:
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return "utf-8" if error.end >= len(head) - 3 and len(head) == _HEAD else "cp1252"
    return "utf-8"


def _header(lines: list[str], options: dict[str, Any], notes: list[str]) -> None:
    """Lines above the header, and whether there is one."""
    sampled = [line for line in lines[:200] if line.strip()]
    if not sampled:
        return
    delimiter = delimiter_of(max(sampled[-20:], key=len), '"')
    if delimiter != ",":
        notes.append(f"fields are separated by {json.dumps(delimiter)}")
    widths = [len(row) for row in csv.reader(sampled, delimiter=delimiter)]
    usual = max(set(widths), key=widths.count)
    above = next((place for place, width in enumerate(widths) if width == usual), 0)
    if above and usual > 1:
        options["skip"] = lines.index(sampled[above])
        notes.append(f"{options['skip']} lines above the header are left out")
    names = next(csv.reader([sampled[above].rstrip("\r\n")], delimiter=delimiter))
    if any(_is_value(name) for name in names):
        options["header"] = False
        notes.append(
            "NOT UNDERSTOOD: the first line looks like data, so the columns have no names; give them in options.names"
        )


def _is_value(text: str) -> bool:
    """Whether a field of the first line is a number or a time, which no column is called."""
    if re.fullmatch(r"[+-]?\d+([.,]\d+)*", text.strip()):
        return True
    try:
        datetime.fromisoformat(text.strip())
    except ValueError:
        return bool(re.fullmatch(r"\d{1,2}[./]\d{1,2}[./]\d{2,4}.*", text.strip()))
    return True


def _nulls(columns: tuple[Column, ...]) -> list[str]:
    seen = {value for one in columns for value in one.values[:_COMMON]}
    return [null for null in _NULLS if null in seen]
