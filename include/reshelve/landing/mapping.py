"""Raw rows become events by the expressions of a mapping file; what DuckDB refuses is named by file, line and key.

A mapping file is code that others write. It has a room: its SQL is one expression or one query over the raw rows
(`raw.statements`), and the database that runs it opens the raw files of its source and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path

import duckdb

from reshelve.clickstream.database import EVENT_TYPES, RawFileError, column, confine, known, text
from reshelve.clickstream.faults import columns_told, reason
from reshelve.config.yaml_models import line_of
from reshelve.errors import ConfigurationError, DataError
from reshelve.landing.expressions import MappingExpression
from reshelve.raw.formats import raw_format
from reshelve.raw.parsed import cast_of_text, casts_in_utc, make_glue, names_alone
from reshelve.raw.raw_files import RawFiles, open_raw
from reshelve.raw.reader_options import ReaderOptions
from reshelve.raw.sources import ClickstreamSource, SourceFiles, list_files, product_list, source_path
from reshelve.raw.statements import StatementError, allow_query

_ROW = "source"  # what an expression calls the whole raw row
_NAMED = 5  # rejected rows in a message; the log has them all


def map_events(
    db: duckdb.DuckDBPyConnection, mapping: ClickstreamSource, scratch: Path, files: SourceFiles | None = None
) -> list[str]:
    """Fill the table `events`: `day`, `row` (the order of the raw files), and the event columns, NULL where a text is blank.

    All rows of `files` (default: of all that the source has). The table
    `left_out` has the rows that `leave_out` is about: reason, and how many. Returns the raw rows that were left out
    because they cannot be read (`options.max_rejects`): file, line and reason of each. Raises ConfigurationError for a
    missing file or a wrong expression, DataError for files that cannot be read. From then on the database is confined to
    `files` and `scratch`: whatever else reads the source in it is given the same.
    """
    files = files or list_files(mapping)
    confine(db, [*files.events, *files.products], [scratch])
    expressions = [
        MappingExpression(
            f"columns.{name}", mapping.expression(name), sql_type, name, then=_then(name, mapping)
        )
        for name, sql_type in EVENT_TYPES.items()
    ]
    expressions.insert(0, _day(mapping))
    conditions = [
        MappingExpression(f"leave_out.{reason}", sql, "BOOLEAN", reason)
        for reason, sql in mapping.leave_out.items()
    ]
    make_glue(db)
    return _event_table(db, mapping, files).create("events", expressions, scratch, conditions)


def days_by_file(
    db: duckdb.DuckDBPyConnection, mapping: ClickstreamSource, files: SourceFiles, scratch: Path
) -> list[tuple[Path, date, int]]:
    """How many rows of which day each raw file of events holds; none where `rows` of the mapping keeps no place of a row.

    The files are read once more, for the day alone. Raises DataError where one has changed since `map_events` read it.
    """
    table = _event_table(db, mapping, files)
    try:
        raw = open_raw(db, table.files, mapping.format, mapping.options, scratch)
        day = _day(mapping).over(db, mapping.format)
        return raw.counted_by_file(table.over_rows, day.cast)
    except (RawFileError, duckdb.Error) as error:
        said = reason(error) if isinstance(error, duckdb.Error) else str(error)
        raise DataError(
            f"{mapping.name}: the raw files changed while they were landed: {said}",
            "land again when they are all delivered",
        ) from error


def _event_table(db: duckdb.DuckDBPyConnection, mapping: ClickstreamSource, files: SourceFiles) -> _Table:
    return _Table(db, mapping.name, "files", files.events, mapping.format, mapping.options, mapping.rows)


def _day(mapping: ClickstreamSource) -> MappingExpression:
    """The day whose partition a row belongs to."""
    if mapping.event_date:
        return MappingExpression("event_date", mapping.event_date, "DATE", "day")
    local = f"CAST(timezone({text(mapping.time_zone)}, CAST({{}} AS TIMESTAMPTZ)) AS DATE)"
    return MappingExpression(
        "columns.event_time", mapping.columns["event_time"], "TIMESTAMP", "day", then=local
    )


def _then(name: str, mapping: ClickstreamSource) -> str:
    return "{} + 1" if name == "position" and mapping.first_position == 0 else "{}"


def map_catalogue(
    db: duckdb.DuckDBPyConnection, mapping: ClickstreamSource, scratch: Path, files: SourceFiles | None = None
) -> list[str]:
    """Fill the table `products`: item_id, title and `row`. Returns and raises as `map_events`."""
    listed = mapping.catalogue
    if listed is None:
        return []
    expressions = [
        MappingExpression("catalogue.item_id", listed.item_id, "VARCHAR", "item_id"),
        MappingExpression("catalogue.title", listed.title, "VARCHAR", "title"),
    ]
    make_glue(db)
    products = files.products if files else product_list(mapping)
    confine(db, products, [scratch])
    table = _Table(db, mapping.name, "catalogue.files", products, listed.format, listed.options, listed.rows)
    return table.create("products", expressions, scratch)


def _reason(conditions: Sequence[MappingExpression]) -> str:
    """The SQL of the first condition that holds for a row, by its name."""
    return f"CASE {' '.join(f'WHEN {each.cast} THEN {text(each.column)}' for each in conditions)} END"


@dataclass(frozen=True)
class _Table:
    """Raw files on their way to a table."""

    db: duckdb.DuckDBPyConnection
    source: str
    key: str  # of the files
    files: list[Path]
    file_format: str
    options: ReaderOptions
    rows: str | None = None

    def create(
        self,
        name: str,
        expressions: list[MappingExpression],
        scratch: Path,
        conditions: Sequence[MappingExpression] = (),
    ) -> list[str]:
        """Make table `name` without the rows of `conditions`, which `left_out` counts; returns the rows that cannot be read."""
        self._allow([*conditions, *expressions])
        copies = scratch / name
        copies.mkdir()
        try:
            raw = open_raw(self.db, self.files, self.file_format, self.options, copies)
        except RawFileError as error:
            raise self._unreadable(error) from error
        expressions = [each.over(self.db, self.file_format) for each in expressions]
        conditions = [each.over(self.db, self.file_format) for each in conditions]
        made = self.over_rows(f"({raw.query})")
        self._bind(raw, made, [*conditions, *expressions])
        casts = ", ".join(f"{each.cast} AS {column(each.column)}" for each in expressions)
        told = ", ".join(
            f"{known(column(each.column))} AS {column(each.column)}"
            for each in expressions
            if each.sql_type == "VARCHAR"
        )
        kept = f" WHERE {_reason(conditions)} IS NULL" if conditions else ""
        try:
            self.db.execute(
                f"CREATE TABLE {name} AS SELECT * REPLACE ({told})"
                f" FROM (SELECT row_number() OVER () AS row, {casts} FROM {made} AS {_ROW}{kept}) AS cast_rows"
            )
            self._count(made, conditions)
        except duckdb.Error as error:
            self._explain(raw, made, [*conditions, *expressions])
            raise DataError(
                f"{self.source}: the raw files cannot be mapped", reason(error, bound=True)
            ) from error
        return self._rejects(raw)

    def _allow(self, expressions: Sequence[MappingExpression]) -> None:
        """Refuse SQL that is more than the mapping file may say, before any of it is run."""
        written = [(each.key, each.allow, each.expected) for each in expressions]
        if self.rows:
            query = partial(allow_query, sql=self.rows)
            written.insert(0, (self._rows_key, query, f"expected a query over raw: {self.rows}"))
        for key, allowed, expected in written:
            try:
                allowed(self.db)
            except StatementError as error:
                raise ConfigurationError(f"{self._place(key)}: {error}", expected) from error

    def _count(self, made: str, conditions: Sequence[MappingExpression]) -> None:
        self.db.execute("CREATE TABLE IF NOT EXISTS left_out (reason VARCHAR, rows BIGINT)")
        if conditions:
            reasons = f"SELECT {_reason(conditions)} AS reason FROM {made} AS {_ROW}"
            self.db.execute(
                f"INSERT INTO left_out SELECT reason, count(*) FROM ({reasons}) WHERE reason IS NOT NULL GROUP BY ALL"
            )

    def over_rows(self, table: str) -> str:
        """What the expressions are about, made of a table of raw rows by the query `rows`."""
        if not self.rows:
            return table
        rows = casts_in_utc(self.db, self.rows) if raw_format(self.file_format).is_text else self.rows
        return (
            f"(WITH raw AS (SELECT * FROM {table}) SELECT * FROM (\n{rows}\n))"  # which may begin with WITH
        )

    def _bind(self, raw: RawFiles, made: str, expressions: list[MappingExpression]) -> None:
        """Name the key that DuckDB refuses before it has read a row."""
        if self.rows:
            expected = f"expected a query over raw: {self.rows}"
            self._try(self._rows_key, expected, f"SELECT * FROM {made} AS {_ROW} LIMIT 0")
        columns = [row[0] for row in self.db.execute(f"DESCRIBE SELECT * FROM {made} AS {_ROW}").fetchall()]
        hides = any(name.lower() == _ROW for name in columns)
        for each in expressions:
            expected = each.expected + self._hint(columns)
            self._try(each.key, expected, f"SELECT {each.cast} FROM {made} AS {_ROW} LIMIT 0")
            if hides and names_alone(self.db, f"SELECT ({each.sql})", _ROW):
                raise ConfigurationError(
                    f"{self._place(each.key)}: `{_ROW}` means the whole row, but the raw files have a column of that name",
                    f"write {_ROW}.{_ROW} for the column; for the row, rename the column:"
                    f" rows: SELECT * RENAME ({_ROW} AS {_ROW}_column) FROM raw",
                )

    @property
    def _rows_key(self) -> str:
        return self.key.replace("files", "rows")

    def _explain(self, raw: RawFiles, made: str, expressions: list[MappingExpression]) -> None:
        """Raise for what is at fault: a raw file, the query `rows`, or the first expression that fails on a row."""
        try:
            raw.check()
        except RawFileError as error:
            self._explain_types(raw)
            raise self._unreadable(error) from error
        if self.rows:
            expected = f"expected a query over raw: {self.rows}"
            self._try(
                self._rows_key, expected, f"SELECT max(hash(COLUMNS(*))) FROM {made} AS {_ROW}", bound=True
            )
        for each in expressions:
            # The first row where something comes in and nothing comes out.
            fails = f"TRY({each.cast}) IS NULL AND TRY(({each.sql}) IS NULL) IS DISTINCT FROM true"
            self._try(
                each.key,
                each.expected,
                f"SELECT count({each.cast}) FROM {made} AS {_ROW}",
                partial(raw.first, self.over_rows, fails),
                bound=True,
            )

    def _explain_types(self, raw: RawFiles) -> None:
        """Raise for the first of `options.types` that a value does not fit."""
        if not raw.options.types:
            return
        text = raw.without_types()
        try:
            text.check()
        except RawFileError:  # the file is at fault, and not a type
            return
        for name, sql_type in raw.options.types.items():
            if name not in text.columns:
                continue
            cast = cast_of_text(column(name), sql_type)
            fails = f"TRY({cast}) IS NULL AND {column(name)} IS NOT NULL"
            self._try(
                f"{self.key.replace('files', 'options')}.types.{name}",
                f"expected values of type {sql_type}",
                f"SELECT count({cast}) FROM ({text.query}) AS {_ROW}",
                partial(text.first, str, fails),
                bound=True,
            )

    def _try(
        self, key: str, expected: str, statement: str, where: Callable[[], str] = str, *, bound: bool = False
    ) -> None:
        try:
            self.db.execute(statement).fetchall()
        except duckdb.Error as error:
            found = where()
            at = f" ({found})" if found else ""
            raise ConfigurationError(
                f"{self._place(key)}: {reason(error, bound=bound)}{at}", expected
            ) from error

    def _place(self, key: str) -> str:
        path = source_path(self.source)
        return f"{path}:{line_of(path, *key.split('.'))}: {key}"

    def _hint(self, columns: list[str]) -> str:
        told = f" Columns: {columns_told(columns)}"
        if not raw_format(self.file_format).is_text:
            return f"\n{told.strip()}"
        typed = "CAST(price AS DOUBLE), or its type in options.types."
        return f"\nWhat {self.file_format} files hold is text: {typed}{told}"

    def _unreadable(self, error: RawFileError) -> DataError:
        return DataError(
            f"{self._place(self.key)}: cannot be read as {self.file_format}: {error}",
            f"describe the file format in {self.key.replace('files', 'options')}; "
            f"{raw_format(self.file_format).expected_options}",
        )

    def _rejects(self, raw: RawFiles) -> list[str]:
        found = raw.rejects()
        if len(found) > self.options.max_rejects:
            key = self.key.replace("files", "options") + ".max_rejects"
            named = "\n".join(found[:_NAMED])
            raise DataError(
                f"{self._place(key)}: {len(found)} unreadable rows, at most {self.options.max_rejects} may be skipped",
                named,
            )
        return found
