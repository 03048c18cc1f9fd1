"""Nights: a run starts on a cron tick and handles the calendar day before it, as `YYYY-MM-DD`.

Why not `CronPartitionTimetable` alone: its offset counts ticks, so a weekly ranker would get the day of
the tick a week before; its partitions lie at the hour of the tick, so `backfill … --to-date 2011-08-30`
(midnight) would leave the 30th out. Here a partition is a whole day and both ends of a backfill belong to it.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from airflow.timetables.base import DagRunInfo, TimeRestriction
from airflow.timetables.trigger import CronPartitionTimetable

if TYPE_CHECKING:
    from pendulum import DateTime

KEY_FORMAT = "%Y-%m-%d"


class NightTimetable(CronPartitionTimetable):
    """One run per cron tick for the partition of the day before the tick.

    `first` (YYYY-MM-DD) is the first partition that the schedule handles. It stands in for the DAG's `start_date`:
    Airflow makes no tasks in a manual run whose logical date is before that one, and calls the empty run a success.
    Manual runs and backfills may handle any day.
    """

    def __init__(self, cron: str, *, timezone: str = "UTC", first: str | None = None) -> None:
        super().__init__(cron, timezone=timezone, run_offset=-1, key_format=KEY_FORMAT)
        self.first = first

    def serialize(self) -> dict[str, Any]:
        """What the database remembers."""
        return {
            "expression": self._expression,
            "timezone": str(self._timezone.name),
            "first": self.first,
        }

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> NightTimetable:
        """The inverse of `serialize`."""
        return cls(data["expression"], timezone=data["timezone"], first=data["first"])

    def next_dagrun_info_v2(
        self, *, last_dagrun_info: DagRunInfo | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        """The next run of the schedule: the first is the night after the day `first`."""
        if self.first:
            first_day = self.localize_partition_datetime(datetime.datetime.fromisoformat(self.first))
            begin = self._midnight(first_day, days=1)
            earliest = max(begin, restriction.earliest) if restriction.earliest else begin
            restriction = TimeRestriction(earliest, restriction.latest, restriction.catchup)
        return super().next_dagrun_info_v2(last_dagrun_info=last_dagrun_info, restriction=restriction)

    def iter_partition_dagrun_infos(
        self, *, earliest: datetime.datetime, latest: datetime.datetime
    ) -> Iterable[DagRunInfo]:
        """A backfill: every day from `earliest` to `latest`, both included, that the schedule would handle.

        A day may run once it is over, whatever hour its night would start at.
        """
        first, last = self.localize_partition_datetime(earliest), self.localize_partition_datetime(latest)
        done: DateTime | None = None
        for tick in self._ticks_from(first):
            day = self._get_partition_date(run_date=tick)
            if day > last:
                return
            if day >= first and day != done:
                done = day
                yield DagRunInfo(
                    run_after=self._midnight(day, days=1),
                    data_interval=None,
                    partition_date=day,
                    partition_key=self._format_key(day),
                )

    def _ticks_from(self, instant: DateTime) -> Iterator[DateTime]:
        tick = self._align_to_next(instant)
        while True:
            yield tick
            tick = self._get_next(tick)

    def _get_partition_date(self, *, run_date: DateTime) -> DateTime:
        return self._midnight(run_date, days=-1)

    def _midnight(self, instant: DateTime, days: int) -> DateTime:
        """The local midnight that begins the day `days` after that of `instant`, in UTC."""
        return instant.in_timezone(self._timezone).start_of("day").add(days=days).in_timezone("UTC")
