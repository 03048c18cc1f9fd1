"""A try of a mapping file: its first day is mapped and judged by its rules, and nothing is landed."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from reshelve.clickstream.database import EVENT_TYPES, database, text, write_parquet
from reshelve.clickstream.dated_files import Span
from reshelve.clickstream.events import EVENT_SCHEMA
from reshelve.clickstream.mapping import map_events
from reshelve.clickstream.rules import load_rules
from reshelve.clickstream.sources import delivered, load_source
from reshelve.errors import DataError
from reshelve.settings import settings

_EXAMPLES = 2


def try_day(source: str, partition: date | None = None) -> dict[str, Any]:
    """Map `source`, and judge the day (default: the first with rows) as a night would, without a past and without a store.

    Returns the verdict with its headline, rows, the broken rules, rows by event type, how many know each column, and some
    events. Raises as `land` where the raw files cannot be mapped; DataError where there is no row.
    """
    from reshelve.clickstream.judgement import Judgement  # Great Expectations takes seconds

    mapping = load_source(source)
    if partition is None and mapping.lands_by_day:
        partition = min(delivered(mapping, Span()), default=None)
    settings().work.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=settings().work, prefix="try-") as made:
        scratch = Path(made)
        span = Span(partition, partition, mapping.neighbour_days)
        with database(scratch / "land.duckdb") as db:
            map_events(db, mapping, scratch, span)
            left_out = dict(db.execute("SELECT reason, rows FROM left_out ORDER BY reason").fetchall())
            days = db.execute(
                "SELECT day, count(*) FROM events WHERE day IS NOT NULL GROUP BY 1 ORDER BY 1"
            ).fetchall()
            chosen = partition or (days[0][0] if days else None)
            if chosen is None or chosen not in dict(days):
                reasons = ", ".join(f"{reason} ({count} rows)" for reason, count in left_out.items())
                raise DataError(
                    f"{source}: no row has the day {chosen or 'of an event'}",
                    "event_date says which day a row is of" + (f"; left out: {reasons}" if reasons else ""),
                )
            rows = f"FROM events WHERE day = DATE {text(chosen)}"
            path = scratch / "part-0.parquet"
            write_parquet(
                db, f"SELECT {', '.join(EVENT_TYPES)} {rows} ORDER BY event_time, row", path, EVENT_SCHEMA
            )
            types = db.execute(
                f"SELECT coalesce(event_type, 'unknown'), count(*) {rows} GROUP BY 1 ORDER BY 2 DESC"
            ).fetchall()
            counts = db.execute(
                f"SELECT {', '.join(f'count({name})' for name in EVENT_TYPES)} {rows}"
            ).fetchall()[0]
            shown = ("event_time", "event_type", "item_id", "item_title", "price")
            examples = db.execute(
                f"SELECT {', '.join(shown)} {rows} ORDER BY row LIMIT {_EXAMPLES}"
            ).fetchall()
        out = scratch / "validated"
        out.mkdir()
        rules = load_rules(mapping.rules).of_day(chosen, mapping.time_zone)
        verdict = Judgement(source, chosen, rules, scratch / "partition.duckdb", out).judge([path])
    judged = verdict.result()
    return {
        "source": source,
        "partition": str(chosen),
        "days": len(days),
        "verdict": judged["verdict"],
        "headline": judged["headline"],
        "rows": judged["rows_in"],
        "quarantined": judged["rows_quarantined"],
        "left_out": left_out,
        "broken": [f"{one['severity']}: {one['rule']}: {one['message']}" for one in judged["rules"]],
        "event_types": dict(types),
        "known": dict(zip(EVENT_TYPES, counts, strict=True)),
        "events": [dict(zip(shown, map(str, row), strict=True)) for row in examples],
    }
