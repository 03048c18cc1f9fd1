"""The clicks of one release: all days on which its canary had a share of the sessions, as far as their clicks are known."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from reshelve.config.ranker import Ranker
from reshelve.deployments.deployment_log import Pointer
from reshelve.errors import DataError
from reshelve.logs import logger
from reshelve.rollout import canary_analysis
from reshelve.rollout.clicked import ClickedDay, join_day
from reshelve.rollout.concurrent import Window, release_windows
from reshelve.statistics.stratified import Stratum
from reshelve.store.objects import ObjectStore
from reshelve.validation.verdicts import PartitionVerdict, read_verdict

_LOOK_SECONDS = 60.0
_MOST_DAYS = 60


@dataclass(frozen=True)
class ReleaseClicks:
    """The days that are joined, and those whose clicks are not known yet, or never will be."""

    days: Mapping[date, ClickedDay]
    missing: tuple[date, ...] = ()

    @property
    def strata(self) -> list[Stratum]:
        """Of all days."""
        return [stratum for day in self.days.values() for stratum in day.strata]


def usable_verdicts(
    store: ObjectStore, ranker: Ranker, windows: Sequence[Window], today: date
) -> dict[date, PartitionVerdict | None]:
    """Every day that the windows touch, with the verdict that lets its clicks be used."""
    days = sorted({day for window in windows for day in window.days(today)})[-_MOST_DAYS:]
    verdicts = {day: read_verdict(store, ranker.data.source, day) for day in days}
    return {
        day: verdict if verdict is not None and verdict.usable else None for day, verdict in verdicts.items()
    }


def release_clicks(
    store: ObjectStore,
    ranker: Ranker,
    windows: Sequence[Window],
    verdicts: Mapping[date, PartitionVerdict | None],
) -> ReleaseClicks:
    """Join every day that can be. A day whose log cannot be read is missing, with an error in the log."""
    days: dict[date, ClickedDay] = {}
    for day, verdict in verdicts.items():
        try:
            found = None if verdict is None else join_day(store, ranker, verdict, windows)
        except DataError as error:
            logger(ranker=ranker.name).error("skipped a day's clicks", day=str(day), problem=error.detail)
            continue
        if found is not None:
            days[day] = found
    return ReleaseClicks(days, tuple(day for day in verdicts if day not in days))


class ClickStep:
    """What a canary's step finds in its clicks; joins again only when a partition was judged since."""

    def __init__(self, store: ObjectStore, ranker: Ranker, pointer: Pointer, version: int) -> None:
        self.rules = ranker.release.canary.clicks
        self.asked = self.rules.max_drop is not None
        self._store, self._ranker = store, ranker
        self._windows = release_windows(store, pointer, version) if self.asked else []
        self._looked = -_LOOK_SECONDS
        self._verdicts: dict[date, PartitionVerdict | None] | None = None
        self._clicks = ReleaseClicks({})

    def look(self) -> canary_analysis.StepAnalysis:
        """Promote, hold or roll back, with the days that it was judged on."""
        now = datetime.now(UTC)
        if time.monotonic() - self._looked >= _LOOK_SECONDS:
            self._looked = time.monotonic()
            verdicts = usable_verdicts(self._store, self._ranker, self._windows, now.date())
            if verdicts != self._verdicts:
                self._clicks = release_clicks(self._store, self._ranker, self._windows, verdicts)
                self._verdicts = verdicts
        overdue = bool(self._windows) and now - self._windows[0].begins >= timedelta(
            hours=self.rules.wait_hours
        )
        found = canary_analysis.judge_clicks(self._clicks.strata, self.rules, overdue=overdue)
        missing = [str(day) for day in self._clicks.missing]
        said = f"; not known yet: the clicks of {', '.join(missing)}" if missing else ""
        evidence = {**found.evidence, "days": [str(day) for day in self._clicks.days], "missing": missing}
        return canary_analysis.StepAnalysis(found.verdict, found.reason + said, evidence)
