"""Long work says how far it is; short work says nothing."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from reshelve import progress as module
from reshelve.progress import Progress, counted


class Lines:
    """What a logger was told."""

    def __init__(self) -> None:
        self.said: list[tuple[str, dict[str, Any]]] = []

    def info(self, what: str, **line: Any) -> None:
        self.said.append((what, line))


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """`passes(3)`: three seconds pass for what counts."""
    now = [1000.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


def test_a_line_has_how_many_how_fast_and_how_long(passes: Callable[[float], None]) -> None:
    log = Lines()
    progress = Progress(log, "answering", "queries", 100, every=5)
    for _ in range(4):
        passes(3)
        progress.add(10)
    assert log.said == [
        ("answering", {"queries": "20/100", "queries_per_second": 3.3, "seconds_left": 24}),
        ("answering", {"queries": "40/100", "queries_per_second": 3.3, "seconds_left": 18}),
    ], "not a line for every step"


def test_what_is_quick_says_nothing_and_loses_nothing() -> None:
    log = Lines()
    assert list(counted(range(1000), log, "counting", "things")) == list(range(1000))
    assert log.said == []


def test_without_a_total_there_is_a_rate_and_no_end(passes: Callable[[float], None]) -> None:
    log = Lines()
    assert list(counted(iter("ab"), log, "reading", "letters")) == ["a", "b"]
    progress = Progress(log, "reading", "rows", every=0)
    passes(2)
    progress.add(5)
    assert log.said == [("reading", {"rows": 5, "rows_per_second": 2.5})]


def test_threads_count_together() -> None:
    log = Lines()
    progress = Progress(log, "sending", "bytes", 8000, every=0)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: [progress.add(1) for _ in range(1000)], range(8)))
    assert max(int(line["bytes"].partition("/")[0]) for _, line in log.said) == 8000
