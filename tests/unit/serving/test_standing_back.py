"""What stands back does the same work, last in line, and not for ever."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from reshelve.modelserver.load_priority import idle, stand_back

CAPABILITIES = int(Path("/proc/self/status").read_text().partition("CapEff:")[2].split()[0], 16)
needs_the_way_back = pytest.mark.skipif(
    not CAPABILITIES >> 23 & 1, reason="the idle class cannot be left without CAP_SYS_NICE"
)


def scheduling() -> tuple[int, int]:
    """Of this thread: its class and its niceness."""
    return os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_work_is_done_at_its_niceness_and_its_answer_comes_back() -> None:
    assert stand_back(scheduling, 12, 5) == (os.SCHED_OTHER, 12)
    assert scheduling()[0] == os.SCHED_OTHER


def test_what_work_raises_is_raised() -> None:
    def fails() -> None:
        raise LookupError("no such version")

    with pytest.raises(LookupError, match="no such version"):
        stand_back(fails, 12, 5)


@needs_the_way_back
def test_an_idle_part_is_in_the_idle_class_and_what_follows_is_not() -> None:
    def work() -> tuple[int, int]:
        with idle():
            inside = scheduling()[0]
        return inside, scheduling()[0]

    assert stand_back(work, 12, 5) == (os.SCHED_IDLE, os.SCHED_OTHER)


@needs_the_way_back
def test_patience_ends_during_an_idle_part_and_for_those_to_come() -> None:
    def work() -> list[int]:
        with idle():
            seen = [scheduling()[0]]
            deadline = time.monotonic() + 10
            while scheduling()[0] == os.SCHED_IDLE and time.monotonic() < deadline:
                time.sleep(0.01)
            seen.append(scheduling()[0])
        with idle():
            return [*seen, scheduling()[0]]

    assert stand_back(work, 12, 0.2) == [os.SCHED_IDLE, os.SCHED_OTHER, os.SCHED_OTHER]


@needs_the_way_back
def test_an_idle_part_that_fails_leaves_the_class() -> None:
    def work() -> int:
        try:
            with idle():
                raise ValueError
        except ValueError:
            return scheduling()[0]

    assert stand_back(work, 12, 5) == os.SCHED_OTHER


@pytest.mark.parametrize("niceness", [None, 0])
def test_who_does_not_stand_back_is_never_idle(niceness: int | None) -> None:
    def work() -> int:
        with idle():
            return scheduling()[0]

    found = work() if niceness is None else stand_back(work, niceness, 5)
    assert found == os.SCHED_OTHER


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.slow
def test_where_the_class_cannot_be_left_it_is_not_entered() -> None:
    code = """if True:
        import os, resource
        from reshelve.modelserver.load_priority import idle, stand_back
        resource.setrlimit(resource.RLIMIT_NICE, (0, 0))
        os.setuid(65534)
        def work():
            with idle():
                return os.sched_getscheduler(0)
        print(stand_back(work, 12, 5) == os.SCHED_OTHER)
    """
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "True"
