"""Land a source: its raw files become Parquet objects a day on S3, in the event columns.

A landed object is never overwritten. Landing again is a no-op where the rows are the same; rows that came late
become a further object of their day, which reopens its verdict; and where rows that are landed are gone it is
refused: a model that was trained on a partition must stay explainable by it.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from reshelve.clickstream.database import EVENT_TYPES, database, reader, reason, text, write_parquet
from reshelve.clickstream.events import EVENT_SCHEMA, catalogue_key, landed_prefix
from reshelve.clickstream.expiry import oldest_kept
from reshelve.clickstream.privacy import protect
from reshelve.clickstream.sources import ClickstreamSource, load_source, raw_files, source_path
from reshelve.clickstream.verdicts import landed_objects
from reshelve.errors import ConfigurationError, DataError, TryAgainError
from reshelve.forms import line_of
from reshelve.logs import logger
from reshelve.progress import Progress
from reshelve.settings import settings
from reshelve.store.objects import ObjectStore, PreconditionFailedError, object_store

CATALOGUE_SCHEMA = pa.schema([pa.field("item_id", pa.string()), pa.field("title", pa.string())])
"""The product list of a source."""

_PART = "part.parquet"  # beside the landing
_OURS = re.compile(r"part-\d+\.parquet")
_MANY_GONE = 0.1  # of the items: a list that is cut off looks like that


def land(source: str, first: date | None = None, last: date | None = None) -> dict[str, Any]:
    """Map `source`'s raw files and land the days from `first` to `last` (both included; None: all there are).

    Days without rows are not landed, nor are days that the source no longer keeps. Returns partitions and rows landed (or found the same), `skipped`
    (the partitions that were there already), `late` (those that got further rows), `undated` (rows without a day, which no partition can hold),
    first and last day, and catalogue (items, or None).

    Raises ConfigurationError for a missing file or a wrong expression, DataError where a day holds
    rows that are not among these.
    """
    if first and last and first > last:
        raise ConfigurationError(f"the first day {first} is after the last {last}")
    mapping = load_source(source)
    kept = oldest_kept(mapping)
    first = max(first or date.min, kept) if kept else first
    store = object_store()
    settings().work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=settings().work, prefix="land-") as scratch:
        directory = Path(scratch)
        with database(directory / "land.duckdb") as db:
            _map_events(db, mapping)
            protect(db)
            days = _days(db, first, last)
            landed = _Landing(store, db, source, directory)
            log = logger(stage="land", source=source)
            progress = Progress(log, "landing", "rows", sum(count for _, count in days))
            for day, count in days:
                landed.day(day)
                progress.add(count)
            items = _land_catalogue(db, mapping, store, directory)
            undated = _count(db, "SELECT count(*) FROM events WHERE day IS NULL")
    rows = sum(count for _, count in days)
    if undated:
        log.warning("rows without a day were left out", rows=undated)
    log.info("landed", partitions=len(days), rows=rows, skipped=landed.skipped)
    return {
        "source": source,
        "partitions": len(days),
        "rows": rows,
        "first": days[0][0].isoformat() if days else None,
        "last": days[-1][0].isoformat() if days else None,
        "skipped": landed.skipped,
        "late": landed.late,
        "undated": undated,
        "catalogue": items,
    }


def _map_events(db: duckdb.DuckDBPyConnection, mapping: ClickstreamSource) -> None:
    """Fill the table `events`: `day`, `row` (the order of the raw files), and the event columns."""
    files = raw_files(mapping.name, "files", mapping.files)
    table = _raw_table(db, mapping.name, "files", files, mapping.format)
    if mapping.rows:
        rows = f"(WITH raw AS (SELECT * FROM {table}) {mapping.rows})"
        _try(
            db,
            mapping.name,
            "rows",
            f"a query over raw: {mapping.rows}",
            f"SELECT * FROM {rows} AS source LIMIT 0",
        )
        table = rows
    expressions = {"event_date": (mapping.event_date, "DATE")}
    for name, sql_type in EVENT_TYPES.items():
        expressions[f"columns.{name}"] = (mapping.columns[name], sql_type)
    _create(db, "events", mapping.name, table, expressions, {"event_date": "day"})


def _raw_table(
    db: duckdb.DuckDBPyConnection, source: str, key: str, files: list[Path], file_format: str
) -> str:
    """The table function over raw files. Raises DataError where they cannot be opened."""
    table = reader(files, file_format)
    try:
        db.execute(f"SELECT * FROM {table} LIMIT 0")
    except duckdb.Error as error:
        names = ", ".join(str(path) for path in files[:3])
        raise DataError(
            f"{source}: the raw files ({key}) cannot be read as {file_format}: {names}", reason(error)
        ) from error
    return table


def _create(
    db: duckdb.DuckDBPyConnection,
    name: str,
    source: str,
    table: str,
    expressions: dict[str, tuple[str, str]],
    aliases: dict[str, str],
) -> None:
    """Create table `name` from `expressions` (key in the mapping file → SQL and its type).

    Raises ConfigurationError naming file, line and key of the expression that DuckDB refuses.
    """
    selected = {
        key: f'CAST(({sql}) AS {sql_type}) AS "{aliases.get(key, key.rpartition(".")[2])}"'
        for key, (sql, sql_type) in expressions.items()
    }
    for key, column in selected.items():
        _try(db, source, key, _expected(expressions[key]), f"SELECT {column} FROM {table} AS source LIMIT 0")
    try:
        db.execute(
            f"CREATE TABLE {name} AS SELECT row_number() OVER () AS row, {', '.join(selected.values())}"
            f" FROM {table} AS source"
        )
    except duckdb.Error as error:
        for key, (sql, sql_type) in expressions.items():
            check = f"SELECT count(CAST(({sql}) AS {sql_type})) FROM {table} AS source"
            _try(db, source, key, _expected((sql, sql_type)), check)
        raise DataError(f"{source}: the raw files cannot be mapped", reason(error)) from error


def _expected(expression: tuple[str, str]) -> str:
    sql, sql_type = expression
    return f"an expression of type {sql_type}: {sql}"


def _try(db: duckdb.DuckDBPyConnection, source: str, key: str, expected: str, statement: str) -> None:
    try:
        db.execute(statement)
    except duckdb.Error as error:
        path = source_path(source)
        line = line_of(path, *key.split("."))
        raise ConfigurationError(
            f"{path}:{line}: {key}: {reason(error)}",
            f"expected {expected}",
        ) from error


def _days(db: duckdb.DuckDBPyConnection, first: date | None, last: date | None) -> list[tuple[date, int]]:
    """The days in the range that have rows, with their counts."""
    return db.execute(
        "SELECT day, count(*) FROM events WHERE day >= coalesce($1, day) AND day <= coalesce($2, day)"
        " GROUP BY day ORDER BY day",
        [first, last],
    ).fetchall()


def _count(db: duckdb.DuckDBPyConnection, statement: str) -> int:
    row = db.execute(statement).fetchone()
    return int(row[0]) if row else 0


@dataclass
class _Landing:
    """Writes days; counts those that were there already, and those that got rows that came late."""

    store: ObjectStore
    db: duckdb.DuckDBPyConnection
    source: str
    directory: Path
    skipped: int = 0
    late: int = 0

    def day(self, day: date) -> None:
        """Write one day's first object, or a further one with the rows that came late, or nothing."""
        path = self.directory / _PART
        columns = ", ".join(EVENT_TYPES)
        query = f"SELECT {columns} FROM events WHERE day = DATE {text(day)} ORDER BY event_time, row"
        write_parquet(self.db, query, path, EVENT_SCHEMA)
        prefix = landed_prefix(self.source, day)
        keys = landed_objects(self.store, self.source, day)
        others = [key for key in keys if not _OURS.fullmatch(key[len(prefix) :])]
        if others:
            raise DataError(
                f"{self.source}: {day} was landed by something else: {self.store.uri(others[0])}",
                f"if this source is to replace it, {_delete(self.store, prefix)} first",
            )
        if keys and not self._late(day, keys, path):
            self.skipped += 1
            return
        self.late += bool(keys)
        key = f"{prefix}part-{len(keys)}.parquet"
        try:
            self.store.put(key, path.read_bytes(), if_absent=True)
        except PreconditionFailedError as error:
            raise TryAgainError(f"{self.source}: {day} is being landed by another process", key) from error

    def _late(self, day: date, keys: Sequence[str], path: Path) -> bool:
        """Leave in `path` only the rows that are not landed yet; False where there are none.

        Raises DataError where rows that are landed are not among these: then it is no late delivery.
        """
        if len(keys) == 1:
            found = self.store.get(keys[0])
            if found is not None and found.body == path.read_bytes():
                return False
        landed = []
        for number, key in enumerate(keys):
            landed.append(self.directory / f"landed-{number}.parquet")
            self.store.download_file(key, landed[-1])
        new, old = reader([path]), reader(landed)
        try:  # other bytes may hold the same rows: another DuckDB wrote them
            missing = _count(self.db, f"SELECT count(*) FROM (FROM {new} EXCEPT ALL FROM {old})")
            extra = _count(self.db, f"SELECT count(*) FROM (FROM {old} EXCEPT ALL FROM {new})")
        except duckdb.Error as error:
            raise DataError(
                f"{self.source}: {day} holds an object that is no such partition", self.store.uri(keys[0])
            ) from error
        if extra:
            raise DataError(
                f"{self.source}: {day} is landed already with other rows"
                f" ({missing} of these are not there, {extra} there are not among these)",
                f"nothing was changed; if these rows are to replace it, {_delete(self.store, landed_prefix(self.source, day))} first",
            )
        if missing:
            late = path.with_name("late.parquet")
            rows = f"SELECT * FROM (FROM {new} EXCEPT ALL FROM {old}) ORDER BY ALL"
            write_parquet(self.db, rows, late, EVENT_SCHEMA)
            late.rename(path)
        return bool(missing)


def _delete(store: ObjectStore, prefix: str) -> str:
    return f"delete that day (aws s3 rm --recursive {store.uri(prefix)}, or docs/how-to/use-your-own-clickstream.md#replace-a-day)"


def _land_catalogue(
    db: duckdb.DuckDBPyConnection, mapping: ClickstreamSource, store: ObjectStore, directory: Path
) -> dict[str, int] | None:
    """Write the product list (one row an item, the first title that is known), or do nothing where there is none.

    Returns its `items`, how many have no title (`untitled`), and how many are `new`, `gone` or `retitled` since it was landed before.
    """
    catalogue = mapping.catalogue
    if catalogue is None:
        return None
    files = raw_files(mapping.name, "catalogue.files", catalogue.files)
    table = _raw_table(db, mapping.name, "catalogue.files", files, catalogue.format)
    expressions = {
        "catalogue.item_id": (catalogue.item_id, "VARCHAR"),
        "catalogue.title": (catalogue.title, "VARCHAR"),
    }
    _create(db, "products", mapping.name, table, expressions, {})
    path = directory / "products.parquet"
    items = write_parquet(
        db,
        "SELECT item_id, arg_min(title, row) AS title FROM products WHERE item_id IS NOT NULL"
        " GROUP BY item_id ORDER BY item_id",
        path,
        CATALOGUE_SCHEMA,
    )
    key = catalogue_key(mapping.name)
    before, found = directory / "before.parquet", store.get(key)
    before.write_bytes(path.read_bytes() if found is None else found.body)
    changes = _changes(db, before, path)
    if found is None or found.body != path.read_bytes():
        store.put(key, path.read_bytes())
    log = logger(stage="land", source=mapping.name)
    (log.warning if changes["gone"] > _MANY_GONE * items else log.info)("catalogue", items=items, **changes)
    return {"items": items, **changes}


def _changes(db: duckdb.DuckDBPyConnection, before: Path, now: Path) -> dict[str, int]:
    """What became of the items of one product list in another."""
    (row,) = db.execute(
        """SELECT count(*) FILTER (now.item_id IS NOT NULL AND now.title IS NULL),
                  count(*) FILTER (before.item_id IS NULL), count(*) FILTER (now.item_id IS NULL),
                  count(*) FILTER (before.item_id = now.item_id AND before.title IS DISTINCT FROM now.title)
           FROM read_parquet($before) AS before FULL JOIN read_parquet($now) AS now ON before.item_id = now.item_id""",
        {"before": str(before), "now": str(now)},
    ).fetchall()
    return dict(zip(("untitled", "new", "gone", "retitled"), row, strict=True))
