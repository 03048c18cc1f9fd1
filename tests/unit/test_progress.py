"""Long work says how far it is; short work says nothing."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from reshelve.progress import Progress, counted


class Lines:
    """What a logger was told."""

    def __init__(self) -> None:
        self.said: list[tuple[str, dict[str, Any]]] = []

    def info(self, what: str, **line: Any) -> None:
        self.said.append((what, line))


def test_a_line_has_how_many_how_fast_and_how_long() -> None:
    log = Lines()
    progress = Progress(log, "answering", "queries", 100, every=0.05)
    for _ in range(4):
        time.sleep(0.03)
        progress.add(10)
    what, line = log.said[0]
    assert (what, line["queries"]) == ("answering", "20/100")
    assert 100 < line["queries_per_second"] <= 10 / 0.03 + 1
    assert line["seconds_left"] == round(80 / line["queries_per_second"])
    assert len(log.said) == 2, "not a line for every step"


def test_what_is_quick_says_nothing_and_loses_nothing() -> None:
    log = Lines()
    assert list(counted(range(1000), log, "counting", "things")) == list(range(1000))
    assert log.said == []


def test_without_a_total_there_is_a_rate_and_no_end() -> None:
    log = Lines()
    assert list(counted(iter("ab"), log, "reading", "letters")) == ["a", "b"]
    progress = Progress(log, "reading", "rows", every=0)
    time.sleep(0.01)
    progress.add(5)
    assert log.said[0][1].keys() == {"rows", "rows_per_second"} and log.said[0][1]["rows"] == 5


def test_threads_count_together() -> None:
    log = Lines()
    progress = Progress(log, "sending", "bytes", 8000, every=0)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: [progress.add(1) for _ in range(1000)], range(8)))
    assert max(int(line["bytes"].partition("/")[0]) for _, line in log.said) == 8000
