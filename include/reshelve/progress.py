"""Work that takes longer than a few seconds says how far it is, how fast, and how long it still takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any, TypeVar

EVERY_SECONDS = 5.0  # a person who waits sees something move; what is quicker says nothing

Each = TypeVar("Each")


class Progress:
    """Counts `unit`s of some work, out of `total` where that is known. May be counted from several threads."""

    def __init__(
        self, log: Any, what: str, unit: str, total: int | None = None, every: float = EVERY_SECONDS
    ) -> None:
        self._log, self._what, self._unit, self._total, self._every = log, what, unit, total, every
        self._lock = threading.Lock()
        self._done = 0
        self._began = self._said = time.monotonic()

    def add(self, count: int = 1) -> None:
        """So many more are done."""
        with self._lock:
            self._done += count
            now = time.monotonic()
            if now - self._said < self._every:
                return
            self._said = now
            line = self._line(now - self._began)
        self._log.info(self._what, **line)

    def _line(self, spent: float) -> dict[str, Any]:
        rate = self._done / spent
        if self._total is None:
            return {self._unit: self._done, f"{self._unit}_per_second": round(rate, 1)}
        left = max(0, self._total - self._done) / rate if rate else None
        return {
            self._unit: f"{self._done}/{self._total}",
            f"{self._unit}_per_second": round(rate, 1),
            "seconds_left": None if left is None else round(left),
        }


def counted(each: Iterable[Each], log: Any, what: str, unit: str) -> Iterator[Each]:
    """The same, one by one, with progress; a thing is done when the next one is asked for."""
    progress = Progress(log, what, unit, len(each) if isinstance(each, Sized) else None)
    for one in each:
        yield one
        progress.add()
