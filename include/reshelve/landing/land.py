"""Land a source: its raw files become Parquet objects a day on S3, in the event columns.

A landed object is never overwritten. Landing again is a no-op where the rows are the same; rows that came late
become a further object of their day, which reopens its verdict; and where rows that are landed are gone the day is
refused: a model that was trained on a partition must stay explainable by it. A refused day keeps no other from landing.
"""

from __future__ import annotations

import filecmp
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb

from reshelve.clickstream.database import EVENT_TYPES, column, database, known, reader, text, write_parquet
from reshelve.clickstream.dated_files import Span
from reshelve.clickstream.events import EVENT_SCHEMA, landed_prefix
from reshelve.clickstream.forgotten import Forgotten, read_forgotten, require_no_wish_since
from reshelve.clickstream.forgotten_rows import drop_events, drop_from_file
from reshelve.clickstream.masks import mask_file
from reshelve.clickstream.privacy import protect
from reshelve.config.yaml_models import line_of
from reshelve.errors import ConfigurationError, DataError, PartlyDoneError, TryAgainError
from reshelve.landing.day_check import warn_of_other_days
from reshelve.landing.mapping import days_by_file, map_catalogue, map_events
from reshelve.landing.product_list import land_catalogue
from reshelve.logs import logger
from reshelve.progress import Progress
from reshelve.raw.sources import (
    ClickstreamSource,
    SourceFiles,
    delivered,
    event_files,
    list_files,
    load_source,
    source_path,
)
from reshelve.scratch import scratch
from reshelve.store.new_files import put_new_file
from reshelve.store.objects import ObjectStore, PreconditionFailedError, object_store
from reshelve.validation.expiry import oldest_kept
from reshelve.validation.verdicts import landed_objects

_PART = "part.parquet"  # beside the landing
_OURS = re.compile(r"part-\d+\.parquet")
_AS_READ_NOW = ", ".join(
    f"{known(column(name))} AS {column(name)}" if sql_type == "VARCHAR" else column(name)
    for name, sql_type in EVENT_TYPES.items()
)


def land(source: str, first: date | None = None, last: date | None = None) -> dict[str, Any]:
    """Map `source`'s raw files and land the days from `first` to `last` (both included; None: all there are).

    Days without rows are not landed, nor are days that the source no longer keeps. Where a `{date}` tells the files of a
    day, only those of these days (and `neighbour_days` around them) are read. Returns partitions and rows landed (or found
    the same), `skipped` (the partitions that were there already), `late` (those that got further rows: `late_days`),
    `undated` (rows without a day, which no partition can hold), `left_out` (reason of `leave_out` → raw rows), `rejected`
    (raw rows that were left out because they cannot be read: file, line and reason), `elsewhere` (rows in files of other
    days than theirs, left out), `masked` (rows in whose texts something personal was masked), first and last day, and catalogue (items, or None).

    Raises ConfigurationError for a missing file or a wrong expression, NotDeliveredError where none of the days has a
    file, DataError for files that cannot be read. Where days hold rows that are not among these, or rows stand elsewhere,
    all others are landed first: then PartlyDoneError with the result and, in it, `refused` (day and reason); DataError
    where there is no other day.
    """
    if first and last and first > last:
        raise ConfigurationError(f"the first day {first} is after the last day {last}")
    mapping = load_source(source)
    span = Span(first, last, mapping.neighbour_days)
    # A day is never begun by its neighbour's rows: it lands when its own files are there.
    return _land(mapping, span, delivered(mapping, span) if mapping.lands_by_day else None)


def land_day(source: str, partition: date) -> dict[str, Any]:
    """Land one day as its night does, and with it the rows that came late for the `neighbour_days` before it.

    Returns and raises as `land`; DataError where it is this day that is refused.
    """
    mapping = load_source(source)
    around = mapping.neighbour_days
    span = Span(partition - timedelta(days=around), partition, around)
    if not mapping.lands_by_day:
        return _land(mapping, span)
    present = delivered(mapping, span)
    if partition not in present:
        event_files(mapping, Span(partition, partition))  # says what was expected
    try:
        return _land(mapping, span, present)
    except PartlyDoneError as error:
        if any(one["day"] == partition.isoformat() for one in error.result["refused"]):
            raise DataError(error.headline, error.detail) from error
        raise


def _land(mapping: ClickstreamSource, span: Span, only: set[date] | None = None) -> dict[str, Any]:
    """Land the days of `span`, or those of them that are in `only`."""
    source, kept = mapping.name, oldest_kept(mapping)
    first = max(span.first or date.min, kept) if kept else span.first
    store = object_store()
    with scratch("land") as directory, database(directory / "land.duckdb") as db:
        files = list_files(mapping, span)
        rejected = map_events(db, mapping, directory, files)
        rejected += map_catalogue(db, mapping, directory, files)
        forgotten = read_forgotten(store, source)
        dropped = drop_events(db, forgotten)  # by the ids of the raw files
        warn_of_other_days(db, mapping)
        masked = protect(db)
        dropped += drop_events(db, forgotten)  # and by those that are landed
        elsewhere = _elsewhere(db, mapping, span, files, directory) if mapping.lands_by_day else {}
        days = [each for each in _days(db, first, span.last) if only is None or each[0] in only]
        landed = _Landing(store, db, source, directory, forgotten)
        log = logger(stage="land", source=source)
        progress = Progress(log, "landing", "rows", sum(count for _, count in days))
        for day, count in days:
            landed.day(day)
            progress.add(count)
        items = land_catalogue(db, mapping, store, directory)
        left_out = dict(db.execute("SELECT reason, rows FROM left_out ORDER BY reason").fetchall())
        undated = _count(db, "SELECT count(*) FROM events WHERE day IS NULL")
    refused = landed.refused
    held = [(day, count) for day, count in days if day not in refused]
    rows = sum(count for _, count in held)
    if undated:
        log.warning("skipped rows without a date", rows=undated)
    for row in rejected:
        log.warning("skipped an unreadable row", row=row)
    if left_out:
        log.info("skipped rows", reasons=left_out)
    if dropped:
        log.info("left out rows of people who are forgotten", rows=dropped)
    log.info("landed", partitions=len(held), rows=rows, skipped=landed.skipped, refused=len(refused))
    result = {
        "source": source,
        "partitions": len(held),
        "rows": rows,
        "first": days[0][0].isoformat() if days else None,
        "last": days[-1][0].isoformat() if days else None,
        "skipped": landed.skipped,
        "late": len(landed.late),
        "late_days": [day.isoformat() for day in landed.late],
        "undated": undated,
        "left_out": left_out,
        "rejected": rejected,
        "masked": masked,
        "elsewhere": elsewhere,
        "refused": [{"day": day.isoformat(), "reason": error.headline} for day, error in refused.items()],
        "catalogue": items,
    }
    if refused:
        _refuse(source, result, list(refused.values()))
    if elsewhere:
        _left_out(mapping, result)
    return result


def _refuse(source: str, result: dict[str, Any], errors: Sequence[DataError]) -> None:
    """Raise for the days that were not landed, when all others are."""
    if not result["partitions"]:
        raise errors[0]
    others = f"; {len(errors) - 1} more days were refused" if len(errors) > 1 else ""
    raise PartlyDoneError(
        f"{errors[0].headline}{others}; the other {result['partitions']} days of {source} are landed",
        "\n".join(error.detail for error in errors),
        result,
    )


def _elsewhere(
    db: duckdb.DuckDBPyConnection, mapping: ClickstreamSource, span: Span, files: SourceFiles, directory: Path
) -> dict[str, int]:
    """Rows by their day that no landing takes: it is not among those of their file's day and its `neighbour_days`."""
    if not mapping.neighbour_days:  # each file is read for its own day alone
        return {day.isoformat(): count for day, count in _days(db, None, None) if not span.holds(day)}
    by_file = directory / "by-file"
    by_file.mkdir()
    far: dict[str, int] = {}
    for path, day, count in days_by_file(db, mapping, files, by_file):
        if abs(day - files.days[path]) > timedelta(days=mapping.neighbour_days):
            far[day.isoformat()] = far.get(day.isoformat(), 0) + count
    return dict(sorted(far.items()))


def _left_out(mapping: ClickstreamSource, result: dict[str, Any]) -> None:
    """Raise for rows that stand in files of a day too far from theirs."""
    elsewhere = result["elsewhere"]
    path = source_path(mapping.name)
    days = list(elsewhere)
    named = f"{days[0]} to {days[-1]}" if len(days) > 1 else days[0]
    raise PartlyDoneError(
        f"{sum(elsewhere.values())} rows of {named} are in the files of other days of {mapping.name} "
        "and were left out",
        f"all others are landed; {path}:{line_of(path, 'neighbour_days')}: neighbour_days (now {mapping.neighbour_days}) says how"
        " far from their day rows may stand, and `event_date` which day is theirs",
        result,
    )


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
    forgotten: Forgotten  # whose rows are not among these
    skipped: int = 0
    late: list[date] = field(default_factory=list)
    refused: dict[date, DataError] = field(default_factory=dict)

    def day(self, day: date) -> None:
        """Write one day's first object, or a further one with the rows that came late, or nothing.

        A day that holds other rows is left as it is, and remembered.
        """
        try:
            self._write(day)
        except DataError as error:
            self.refused[day] = error

    def _write(self, day: date) -> None:
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
        if keys:
            self.late.append(day)
        key = f"{prefix}part-{len(keys)}.parquet"
        require_no_wish_since(self.store, self.source, self.forgotten, f"{day} was landed")
        try:
            put_new_file(self.store, path, key)
        except PreconditionFailedError as error:
            raise TryAgainError(f"{self.source}: {day} is being landed by another process", key) from error

    def _late(self, day: date, keys: Sequence[str], path: Path) -> bool:
        """Leave in `path` only the rows that are not landed yet; False where there are none.

        Raises DataError where rows that are landed are not among these: then it is no late delivery.
        """
        landed = []
        for number, key in enumerate(keys):
            landed.append(self.directory / f"landed-{number}.parquet")
            self.store.download_file(key, landed[-1])
        if len(keys) == 1 and filecmp.cmp(landed[0], path, shallow=False):
            return False
        for each in landed:
            mask_file(each)  # the same rows may have landed when less was masked
            drop_from_file(each, self.forgotten, [day])  # or are there until `forget` has come to them
        new, old = f"(FROM {reader([path])})", f"(SELECT {_AS_READ_NOW} FROM {reader(landed)})"
        try:  # other bytes may hold the same rows: another DuckDB wrote them, or ids were made otherwise
            if self._sum(new) == self._sum(old):
                return False
            same = list(EVENT_TYPES)
            missing, extra = self._compare(new, old, same)
            if extra:  # or the same events under other ids: digests of raw rows that were read otherwise
                same.remove("event_id")
                missing, extra = self._compare(new, old, same)
        except duckdb.Error as error:
            raise DataError(
                f"{self.source}: {day} contains an object that is not a partition file",
                self.store.uri(keys[0]),
            ) from error
        if extra:
            raise DataError(
                f"{self.source}: {day} has already landed with other rows ({missing} of these are not there, "
                f"{extra} there are not among these)",
                f"nothing was changed; if these rows are to replace it, {_delete(self.store, landed_prefix(self.source, day))} first",
            )
        if missing:
            late = path.with_name("late.parquet")
            rows = f"SELECT {', '.join(EVENT_TYPES)} FROM {_numbered(new, same)} ANTI JOIN {_numbered(old, same)} USING (content, copy)"
            write_parquet(self.db, f"SELECT * FROM ({rows}) ORDER BY ALL", late, EVENT_SCHEMA)
            late.rename(path)
        return bool(missing)

    def _sum(self, rows: str) -> tuple[int, int]:
        """A sum over the rows but for their ids: a quick way to see that two days are the same."""
        content = ", ".join(name for name in EVENT_TYPES if name != "event_id")
        (found,) = self.db.execute(f"SELECT count(*), sum(hash({content})) FROM {rows}").fetchall()
        return found

    def _compare(self, new: str, old: str, columns: Sequence[str]) -> tuple[int, int]:
        """How many rows of one are not in the other by those columns, both ways."""
        one, other = (f"(SELECT {', '.join(columns)} FROM {rows})" for rows in (new, old))
        missing = _count(self.db, f"SELECT count(*) FROM (FROM {one} EXCEPT ALL FROM {other})")
        return missing, _count(self.db, f"SELECT count(*) FROM (FROM {other} EXCEPT ALL FROM {one})")


def _numbered(rows: str, columns: Sequence[str]) -> str:
    """`rows` with their `content`, those columns, and which `copy` of it each is."""
    content = f"SELECT *, row({', '.join(columns)}) AS content FROM {rows}"
    copy = "row_number() OVER (PARTITION BY content ORDER BY event_id) AS copy"
    return f"(SELECT *, {copy} FROM ({content}))"


def _delete(store: ObjectStore, prefix: str) -> str:
    return f"delete that day (aws s3 rm --recursive {store.uri(prefix)}, or docs/how-to/use-your-own-clickstream.md#replace-a-day)"
