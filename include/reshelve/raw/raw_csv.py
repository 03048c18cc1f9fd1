"""CSV read without guesses: every field is text, whatever the rows before it held.

DuckDB's own detection looks at some rows and then changes the others: `00412` becomes 412 where the first
rows look like numbers, a line that begins with # disappears, and so do lines above what looks like a header.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb

from reshelve.clickstream.database import RawFileError, column, text
from reshelve.clickstream.faults import columns_told, csv_fault
from reshelve.raw.parsed import cast_of_text
from reshelve.raw.raw_format import Fault, RawFormat
from reshelve.raw.reader_options import ReaderOptions

_Head = tuple[str, tuple[str, ...], int]  # delimiter, columns, lines above the first that is not blank
_DELIMITERS = ",;\t|"
_BLANK_LINES = 100  # at the top of a file, at most
_LONGEST_LINE = 16 * 1024 * 1024  # bytes
_REJECTS = ", store_rejects = true, rejects_table = 'raw_errors', rejects_scan = 'raw_scans'"


def csv_query(
    db: duckdb.DuckDBPyConnection, files: Sequence[Path], options: ReaderOptions, filename: str | None = None
) -> str:
    """The query over all rows of `files`, in their order. Files may have different columns.

    `filename`: a further column with the file of each. Raises duckdb.Error, or RawFileError for files without any line
    or (without `union_by_name`) of different columns.
    """
    further = (f", filename = {text(filename)}" if filename else "") + (
        _REJECTS if options.max_rejects else ""
    )
    heads = [(path, head) for path in files if (head := _head(db, path, options))]
    if not heads:
        raise RawFileError(f"{files[0]} is empty; expected {'a header' if options.header else 'rows'}")
    if not options.union_by_name:
        _same_columns(heads)
    return " UNION ALL BY NAME ".join(
        _select([path for path, _ in group], head, options, further)
        for head, group in itertools.groupby(heads, lambda found: found[1])
    )


def _select(files: Sequence[Path], head: _Head, options: ReaderOptions, further: str) -> str:
    delimiter, names, skip = head
    told = {
        "columns": "{" + ", ".join(f"{text(name)}: 'VARCHAR'" for name in names) + "}",
        "auto_detect": "false",
        "delim": text(delimiter),
        "header": str(options.header).lower(),
        "quote": text(options.quote),
        "escape": text(options.escape if options.quote else ""),
        "comment": text(options.comment),
        "skip": str(skip),
        "strict_mode": str(options.strict).lower(),
        "null_padding": str(options.null_padding).lower(),
        "nullstr": "[" + ", ".join(map(text, ("", *options.null_strings))) + "]",
        "max_line_size": str(_LONGEST_LINE),
        "hive_types_autocast": "false",
    }
    listed = ", ".join(map(text, files))
    given = ", ".join(f"{name} = {value}" for name, value in told.items())
    return f"SELECT {typed(names, options)} FROM read_csv([{listed}], {given}{further})"


def typed(names: Sequence[str], options: ReaderOptions) -> str:
    """All columns, those of `options.types` cast to them."""
    wanted = {name.lower(): sql_type for name, sql_type in options.types.items()}
    casts = [
        f"{cast_of_text(column(name), wanted[name.lower()])} AS {column(name)}"
        for name in names
        if name.lower() in wanted
    ]
    return f"* REPLACE ({', '.join(casts)})" if casts else "*"


def _head(db: duckdb.DuckDBPyConnection, path: Path, options: ReaderOptions) -> _Head | None:
    """How a file begins; None where it has no line."""
    found = db.execute(
        f"SELECT line FROM read_csv({text(path)}, auto_detect = false, header = false, delim = '', quote = '', escape = '',"
        f" columns = {{'line': 'VARCHAR'}}, hive_partitioning = false, strict_mode = false, max_line_size = {_LONGEST_LINE}, skip = {options.skip}) LIMIT {_BLANK_LINES}"
    ).fetchall()
    lines = [line or "" for (line,) in found]
    place = next((place for place, line in enumerate(lines) if _says_something(line, options)), None)
    if place is None:
        return None
    line, skip = lines[place], options.skip + sum(not above.strip() for above in lines[:place])
    delimiter = options.delimiter or delimiter_of(line, options.quote)
    if options.names:
        return delimiter, options.names, skip
    fields = _fields(line, delimiter, options)
    return delimiter, tuple(_unique(fields if options.header else [""] * len(fields))), skip


def _says_something(line: str, options: ReaderOptions) -> bool:
    return bool(line.strip()) and not (options.comment and line.startswith(options.comment))


def delimiter_of(line: str, quote: str) -> str:
    """What a line has most of, outside quotes: comma, semicolon, tab or bar."""
    bare = re.sub(f"{re.escape(quote)}[^{re.escape(quote)}]*{re.escape(quote)}", "", line) if quote else line
    return max(_DELIMITERS, key=bare.count)  # the first of them where there is none


def _fields(line: str, delimiter: str, options: ReaderOptions) -> list[str]:
    if not options.quote:
        return next(csv.reader([line], delimiter=delimiter, quoting=csv.QUOTE_NONE), [""])
    doubled = options.escape in ("", options.quote)
    escape = None if doubled else options.escape
    reader = csv.reader(
        [line], delimiter=delimiter, quotechar=options.quote, doublequote=doubled, escapechar=escape
    )
    return next(reader, [""])


def _unique(names: Sequence[str]) -> Iterator[str]:
    """Names as DuckDB makes them: `a, A` becomes `a, A_1`; a column without a name is called by its place."""
    seen: set[str] = set()
    for place, given in enumerate(names):
        base = given or f"column{place}"
        name = next(
            made
            for number in itertools.count()
            if (made := f"{base}_{number}" if number else base).lower() not in seen
        )
        seen.add(name.lower())
        yield name


def _same_columns(heads: Sequence[tuple[Path, _Head]]) -> None:
    first, (_, columns, _) = heads[0]
    for path, (_, names, _) in heads[1:]:
        if names != columns:
            raise RawFileError(
                f"{path.name} has the columns {columns_told(names)}; {first.name} has {columns_told(columns)}"
                " (union_by_name is false)"
            )


def _tsv_query(
    db: duckdb.DuckDBPyConnection, files: Sequence[Path], options: ReaderOptions, filename: str | None = None
) -> str:
    return csv_query(db, files, options.model_copy(update={"delimiter": "\t"}), filename)


def _rejects(db: duckdb.DuckDBPyConnection, files: Sequence[Path], options: ReaderOptions) -> Iterator[Fault]:
    rows = db.execute(
        "SELECT file_path, line, min(error_message) FROM raw_errors JOIN raw_scans USING (scan_id, file_id)"
        f" WHERE file_path IN ({', '.join(map(text, files))}) GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    for path, line, problem in rows:
        yield Fault(Path(path), line, csv_fault(problem))


_OPTIONS = frozenset(
    {
        "comment", "encoding", "escape", "header", "max_rejects", "names", "null_padding", "null_strings", "quote", "skip",
        "strict", "types", "union_by_name",
    }
)  # fmt: skip
CSV = RawFormat(
    "csv", "a CSV file with a header", (".csv", ".txt"), csv_query, _OPTIONS | {"delimiter"}, rejects=_rejects
)
TSV = RawFormat(
    "tsv", "a file of tab-separated values with a header", (".tsv",), _tsv_query, _OPTIONS, rejects=_rejects
)
