"""Loads stand back: while one version is read, requests of the others go first (decision 0116)."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

from reshelve.processes import yield_to_others

_IDLE, _NORMAL, _PARAMETERS = os.SCHED_IDLE, os.SCHED_OTHER, os.sched_param(0)
_own = threading.local()

T = TypeVar("T")


def stand_back(work: Callable[[], T], niceness: int, patience: float) -> T:
    """What `work()` gives or raises, done by a thread of its own with that niceness (0 to 19).

    For `patience` seconds the parts of the work that are `idle` get only what nothing else wants of the processors; what
    lasts longer gets the share that its niceness gives, or it might never end where other work fills them.
    """
    found: Future[T] = Future()
    turn = _Turn()

    def run() -> None:
        try:
            yield_to_others(niceness)
            if niceness and _may_come_back():
                _own.turn = turn
            found.set_result(work())
        except BaseException as error:  # noqa: BLE001  whoever waits raises it
            found.set_exception(error)

    thread = threading.Thread(target=run, name="standing back")
    thread.start()
    thread.join(patience)
    turn.end()
    thread.join()
    return found.result()


@contextmanager
def idle() -> Iterator[None]:
    """In a thread that stands back: the block runs in the kernel's idle class. Elsewhere it is a block like any other.

    Only for work that holds nothing others wait for, Python's interpreter above all. More than the share it is the
    place that counts: the kernel lets a thread that wakes up have a processor on which only that class runs at once, as
    if it were free.
    """
    turn = getattr(_own, "turn", None)
    if turn is None:
        yield
        return
    turn.step_back()
    try:
        yield
    finally:
        turn.come_back()


class _Turn:
    """Whether one thread may be in the idle class, and puts it there."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._over = False
        self._idle: int | None = None  # the thread that is in it

    def step_back(self) -> None:
        with self._lock:
            if not self._over:
                self._idle = threading.get_native_id()
                os.sched_setscheduler(self._idle, _IDLE, _PARAMETERS)

    def come_back(self) -> None:
        with self._lock:
            if self._idle is not None:
                os.sched_setscheduler(self._idle, _NORMAL, _PARAMETERS)
                self._idle = None

    def end(self) -> None:
        with self._lock:
            self._over = True
        self.come_back()


@cache
def _may_come_back() -> bool:
    """Whether this process may take a thread out of the idle class again: without CAP_SYS_NICE most may not."""
    answer: list[bool] = []

    def trial() -> None:
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(0, _IDLE, _PARAMETERS)
            os.sched_setscheduler(0, _NORMAL, _PARAMETERS)
            answer.append(True)

    thread = threading.Thread(target=trial, name="trial")
    thread.start()
    thread.join()
    return bool(answer)
