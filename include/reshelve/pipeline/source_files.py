"""The files of a source that hold rows of people, fetched one at a time: by day, and by whose rows they have."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from reshelve.clickstream.events import landed_prefix, validated_prefix
from reshelve.clickstream.forgotten import Forgotten
from reshelve.clickstream.forgotten_rows import mentions, visits_with_others, visits_with_them
from reshelve.errors import DataError
from reshelve.scratch import scratch
from reshelve.store.layout import requests_of
from reshelve.store.objects import ObjectStore
from reshelve.validation.verdicts import partitions_below

_ROWS = ("good.parquet", "quarantine.parquet")
_DAY = re.compile(r"/dt=(\d{4}-\d{2}-\d{2})/")
_NEIGHBOURS = (timedelta(days=-1), timedelta(0), timedelta(days=1))


@dataclass(frozen=True)
class LandedFiles:
    """Landed and validated rows of one source, and the logged requests of its rankers."""

    store: ObjectStore
    source: str

    def dates(self) -> list[date]:
        """The days that have landed or were validated."""
        kinds = (landed_prefix, validated_prefix)
        return sorted(
            {day for prefix in kinds for day in partitions_below(self.store, prefix(self.source, date.min))}
        )

    def tables(self, day: date) -> Iterator[tuple[str, Path]]:
        """A day's landed and validated files of rows, each fetched for as long as it is looked at."""
        for key, _ in self.store.list(landed_prefix(self.source, day)):
            yield from ((key, path) for path in self._fetched(key))
        for key, _ in self.store.list(validated_prefix(self.source, day)):
            if key.rpartition("/")[2] in _ROWS:
                yield from ((key, path) for path in self._fetched(key))

    def logs(self, rankers: Sequence[str]) -> Iterator[tuple[str, Path]]:
        """The logged requests of rankers, likewise."""
        for ranker in rankers:
            for key, _ in self.store.list(requests_of(ranker)):
                yield from ((key, path) for path in self._fetched(key))

    def _fetched(self, key: str) -> Iterator[Path]:
        with scratch("forget") as directory:
            path = directory / key.rpartition("/")[2]
            self.store.download_file(key, path)
            yield path

    def look_at(self, day: date, known: Forgotten) -> tuple[bool, bool, set[str]]:
        """Whether a day has rows of theirs, whether a file of text mentions them, and the visits that are theirs alone.

        A visit is judged by all files of the day. What is damaged is named when it is to be written anew.
        """
        found, mentioned, visits = False, False, set[str]()
        for key, path in self.tables(day):
            try:
                if is_parquet(key):
                    here, theirs = visits_with_them(path, known, day)
                    found, visits = found or here, visits | theirs
                else:
                    mentioned = mentioned or mentions(path, known, day)
            except DataError:
                continue
        for key, path in self.tables(day) if visits else ():
            try:
                if is_parquet(key):
                    visits -= visits_with_others(path, known, visits)
            except DataError:
                continue
        return found, mentioned, visits


def is_parquet(key: str) -> bool:
    """Whether an object is Parquet by its name."""
    return key.endswith((".parquet", ".pq"))


def days_of_log(key: str) -> list[date]:
    """The days whose visits a log may have: its own is UTC's, those of events are the shop's."""
    found = _DAY.search(key)
    return [date.fromisoformat(found[1]) + step for step in _NEIGHBOURS] if found else []
