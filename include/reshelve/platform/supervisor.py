"""What starts the platform's processes again when they die: `python -m reshelve.platform.supervisor`.

`up` starts two of these. They are alike, and each looks after the platform's processes and after the other one: so the
death of one is handled as any other. Each restart is made under the platform's lock and written down before it is tried,
so two of them never start a thing twice, and what dies again and again is left alone.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Collection
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from reshelve.files import keep_from_others, write_whole
from reshelve.logs import configure_logs, logger
from reshelve.platform.services import PlatformState

SUPERVISORS = ("supervisor", "deputy")
COMMAND = [sys.executable, "-m", "reshelve.platform.supervisor"]

DELAYS = (5.0, 10.0, 20.0, 40.0, 80.0)
"""Seconds that a process stays dead before it is started again, by how often that was done within `WINDOW_SECONDS`; no
more often. The first leaves time to whoever killed it in order to start it again."""

WINDOW_SECONDS = 3600.0
_EVERY_SECONDS = 1.0
_LOOKS_UNLISTED = 3  # `up` writes a process down a moment after it has started it


class Restarts(BaseModel):
    """`<home>/restarts.json`: when each process was started again, in seconds since 1970."""

    model_config = ConfigDict(frozen=True)

    made: dict[str, tuple[float, ...]] = {}

    @classmethod
    def read(cls, home: Path) -> Restarts:
        """Those of the platform under `home`; none where nothing has died since `up`."""
        path = home / "restarts.json"
        return cls.model_validate_json(path.read_text()) if path.is_file() else cls()

    @staticmethod
    def forget(home: Path) -> None:
        """A person has seen to it: what was given up is tried again."""
        (home / "restarts.json").unlink(missing_ok=True)

    def write(self, home: Path) -> None:
        """Keep them, whole or not at all."""
        write_whole(home / "restarts.json", self.model_dump_json(indent=1))

    def of(self, name: str, now: float) -> int:
        """How often a process was started again within the window."""
        return sum(now - at < WINDOW_SECONDS for at in self.made.get(name, ()))

    def delay(self, name: str, now: float) -> float | None:
        """Seconds that a process has to be dead before it is started again; None: it has died too often."""
        times = self.of(name, now)
        return DELAYS[times] if times < len(DELAYS) else None

    def with_restart(self, names: Collection[str], now: float) -> Restarts:
        """A copy that knows of a restart of each; what is older than the window is dropped."""
        kept = {
            name: tuple(at for at in times if now - at < WINDOW_SECONDS) for name, times in self.made.items()
        }
        return Restarts(made={**kept, **{name: (*kept.get(name, ()), now) for name in names}})


class Supervisor:
    """Looks at the platform under `home`. It remembers since when what is dead is dead, and what it gave up."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._dead_since: dict[str, float] = {}  # by a clock that nobody sets
        self._given_up: set[str] = set()

    def look(self) -> list[str]:
        """Start again what has been dead for long enough; returns its names.

        Raises ReshelveError where it does not start: it is tried again after the next delay.
        """
        services = PlatformState.read(self._home).services
        dead = [name for name, service in services.items() if not service.lives()]
        now, restarts, at = time.time(), Restarts.read(self._home), time.monotonic()
        self._dead_since = {name: self._dead_since.get(name, at) for name in dead}
        self._tell(dead, restarts, now)
        due = [
            name
            for name in dead
            if (delay := restarts.delay(name, now)) is not None and at - self._dead_since[name] >= delay
        ]
        if not due:
            return []
        # Not needed, and its memory not taken, until something dies.
        from reshelve.platform.machine import revive

        self._dead_since = {}
        return revive(due, {name: restarts.of(name, now) for name in services})

    def look_on(self) -> str:
        """Look, whatever may go wrong; returns what did. The next look may find it mended."""
        try:
            self.look()
        except Exception as error:  # noqa: BLE001 a database or a store that is away may raise anything
            problem = str(error) or type(error).__name__
            logger(stage="platform").error("what died was not started", problem=problem)
            return problem
        return ""

    def _tell(self, dead: Collection[str], restarts: Restarts, now: float) -> None:
        for name in set(dead) - self._given_up:
            if restarts.delay(name, now) is None:
                logger(stage="platform").error(given_up(restarts.of(name, now)), service=name)
                self._given_up.add(name)
        self._given_up &= set(dead)


def given_up(times: int) -> str:
    """What is said of a process that dies again and again."""
    return f"was started again {times} times within an hour and died each time: see its log, then `reshelve platform up`"


def main() -> None:
    """Look every second until SIGTERM, or until this process is none of the platform's any more."""
    from reshelve.settings import settings

    configure_logs()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    home, log = settings().home.absolute(), logger(stage="platform")
    keep_from_others(home)
    supervisor, unlisted = Supervisor(home), 0
    while unlisted < _LOOKS_UNLISTED and not stop.wait(_EVERY_SECONDS):
        try:
            listed = {service.pid for service in PlatformState.read(home).services.values()}
            unlisted = 0 if os.getpid() in listed else unlisted + 1
        except (OSError, ValueError) as error:
            log.error("what was started is not read", problem=str(error))
        supervisor.look_on()


if __name__ == "__main__":
    main()
