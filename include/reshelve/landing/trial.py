"""A try of a mapping file: its first day is mapped and judged by its rules, and nothing is landed."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import duckdb

from reshelve.clickstream.database import EVENT_TYPES, database, text, write_parquet
from reshelve.clickstream.dated_files import Span
from reshelve.clickstream.events import EVENT_SCHEMA
from reshelve.clickstream.privacy import protect
from reshelve.errors import DataError
from reshelve.landing.day_check import warn_of_other_days
from reshelve.landing.mapping import map_catalogue, map_events
from reshelve.landing.product_list import write_products
from reshelve.raw.sources import ClickstreamSource, delivered, list_files, load_source
from reshelve.scratch import scratch
from reshelve.validation.rules import load_rules

_EXAMPLES = 2


def try_day(source: str, partition: date | None = None) -> dict[str, Any]:
    """Map `source`, and judge the day (default: the first with rows) as a night would, without a past and without a store.

    Returns the verdict with its headline, rows, the broken rules, rows by event type, how many know each column, and some
    events. Raises as `land` where the raw files cannot be mapped; DataError where there is no row.
    """
    mapping = load_source(source)
    if partition is None and mapping.lands_by_day:
        partition = min(delivered(mapping, Span()), default=None)
    with scratch("try") as directory:
        path, products = directory / "part-0.parquet", directory / "products.parquet"
        span = Span(partition, partition, mapping.neighbour_days)
        with database(directory / "land.duckdb") as db:
            files = list_files(mapping, span)
            map_events(db, mapping, directory, files)
            map_catalogue(db, mapping, directory, files)
            other_days = warn_of_other_days(db, mapping)
            protect(db)  # as a night does, before its rules see a row
            chosen, said = _day(db, source, partition)
            rows = f"FROM events WHERE day = DATE {text(chosen)}"
            columns = ", ".join(EVENT_TYPES)
            write_parquet(db, f"SELECT {columns} {rows} ORDER BY event_time, row", path, EVENT_SCHEMA)
            if mapping.catalogue:
                said["products"] = write_products(db, products)
            said |= _shown(db, rows)
            if other_days:
                said["of_other_days"] = other_days  # by event_date, and not by event_time in time_zone
        judged = _judged(mapping, chosen, path, products if mapping.catalogue else None)
    return {
        "source": source,
        "partition": str(chosen),
        "verdict": judged["verdict"],
        "headline": judged["headline"],
        "rows": judged["rows_in"],
        "quarantined": judged["rows_quarantined"],
        "broken": [f"{one['severity']}: {one['rule']}: {one['message']}" for one in judged["rules"]],
        **said,
    }


def _day(db: duckdb.DuckDBPyConnection, source: str, partition: date | None) -> tuple[date, dict[str, Any]]:
    """The day that is tried, and what is told of all days."""
    left_out = dict(db.execute("SELECT reason, rows FROM left_out ORDER BY reason").fetchall())
    days = db.execute("SELECT DISTINCT day FROM events WHERE day IS NOT NULL ORDER BY 1").fetchall()
    chosen = partition or (days[0][0] if days else None)
    if chosen is None or (chosen,) not in days:
        reasons = ", ".join(f"{reason} ({count} rows)" for reason, count in left_out.items())
        raise DataError(
            f"{source}: no row has the day {chosen or 'of an event'}",
            "event_date, or else event_time, says which day a row is of"
            + (f"; left out: {reasons}" if reasons else ""),
        )
    return chosen, {"days": len(days), "left_out": left_out}


def _shown(db: duckdb.DuckDBPyConnection, rows: str) -> dict[str, Any]:
    """Rows by event type, how many know each column, and some events."""
    types = db.execute(
        f"SELECT coalesce(event_type, 'unknown'), count(*) {rows} GROUP BY 1 ORDER BY 2 DESC"
    ).fetchall()
    counts = db.execute(f"SELECT {', '.join(f'count({name})' for name in EVENT_TYPES)} {rows}").fetchall()[0]
    names = ("event_time", "event_type", "item_id", "item_title", "price")
    examples = db.execute(f"SELECT {', '.join(names)} {rows} ORDER BY row LIMIT {_EXAMPLES}").fetchall()
    return {
        "event_types": dict(types),
        "known": dict(zip(EVENT_TYPES, counts, strict=True)),
        "events": [dict(zip(names, map(str, row), strict=True)) for row in examples],
    }


def _judged(mapping: ClickstreamSource, day: date, path: Path, products: Path | None) -> dict[str, Any]:
    """The verdict on one file of events."""
    from reshelve.validation.partition_check import PartitionCheck  # Great Expectations takes seconds

    out = path.parent / "validated"
    out.mkdir()
    rules = load_rules(mapping.rules).of_day(day, mapping.time_zone)
    file = path.parent / "partition.duckdb"
    return PartitionCheck(mapping.name, day, rules, file, out, products).judge([path]).result()
