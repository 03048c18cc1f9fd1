"""Which day a run handles, decided in this one place.

| the run has | partition | example |
|---|---|---|
| a partition key (schedule, backfill, REST) | the key | `2011-08-30` → 2011-08-30 |
| the param `partition` (a manual run) | the param | `2011-08-30` → 2011-08-30 |
| a data interval with a width | the day it starts on | 08-30 03:30 … 08-31 03:30 → 2011-08-30 |
| only a logical date | the day before it, as the schedule would | 2011-08-31 03:30 → 2011-08-30 |
| none of these | refused | |

The key and the param may both be given only if they agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any


class PartitionError(ValueError):
    """A run does not say which day it handles, or says it twice differently."""


def parse_day(text: str, where: str) -> date:
    """`YYYY-MM-DD` as a date. Raises PartitionError naming `where` it was given."""
    try:
        return datetime.strptime(text, "%Y-%m-%d").date()
    except ValueError as error:
        raise PartitionError(f"{where} {text!r} is not a partition: expected YYYY-MM-DD") from error


def resolve_partition(
    *,
    key: str | None = None,
    asked: str | None = None,
    interval: tuple[datetime, datetime] | None = None,
    logical_date: datetime | None = None,
) -> date:
    """The partition of a run; see the table above. Raises PartitionError."""
    if key:
        day = parse_day(key, "partition key")
        if asked and parse_day(asked, "param partition") != day:
            raise PartitionError(
                f"the run's partition key is {key}, its param partition is {asked}: give one of them"
            )
        return day
    if asked:
        return parse_day(asked, "param partition")
    if interval and interval[0] < interval[1]:
        return interval[0].astimezone(UTC).date()
    if logical_date:
        return (logical_date.astimezone(UTC) - timedelta(days=1)).date()
    raise PartitionError(
        "this run has no partition key, no param partition and no logical date: say which day it is for"
    )


def partition_of(dag_run: Any, params: Mapping[str, Any]) -> date:
    """The partition of an Airflow DAG run with its params. Raises PartitionError."""
    start, end = dag_run.data_interval_start, dag_run.data_interval_end
    return resolve_partition(
        key=dag_run.partition_key,
        asked=params.get("partition"),
        interval=(start, end) if start and end else None,
        logical_date=dag_run.logical_date,
    )
