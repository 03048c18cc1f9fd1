"""Whether a mapping's two ways to say a day agree: its `event_date`, and the day of `event_time` in its `time_zone`."""

from __future__ import annotations

import duckdb

from reshelve.clickstream.database import text
from reshelve.logs import logger
from reshelve.raw.sources import ClickstreamSource


def warn_of_other_days(db: duckdb.DuckDBPyConnection, mapping: ClickstreamSource) -> int:
    """How many rows of the table `events` have another day by `event_date`; they would be quarantined, so it is said.

    Times without an offset are UTC unless the mapping converts them: this is where that is seen, before a day is judged.
    """
    if not mapping.event_date:
        return 0
    local = f"CAST(timezone({text(mapping.time_zone)}, CAST(event_time AS TIMESTAMPTZ)) AS DATE)"
    ((rows,),) = db.execute(f"SELECT count(*) FROM events WHERE day <> {local}").fetchall()
    if rows:
        logger(stage="land", source=mapping.name).warning(
            "event_date is not the day of event_time in time_zone: validation sets these rows aside (event_in_partition);"
            " leave event_date out, or set time_zone to the zone whose days event_date has",
            rows=rows,
            time_zone=mapping.time_zone,
        )
    return int(rows)
