"""Start, replace and stop an admission process. It lives on when the gateway's own process dies, as nginx does."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from reshelve.errors import TryAgainError
from reshelve.gateway.nginx import bare
from reshelve.logs import logger
from reshelve.processes import start, wait_until

_MODULE = "reshelve.gateway.admission_server"
_START_SECONDS = 30.0
_STOP_SECONDS = 10.0


@dataclass(frozen=True)
class _Starting:
    """A process that does not listen yet, whom it replaces, and when it is given up (on the monotonic clock)."""

    process: subprocess.Popen[bytes]
    old: int | None
    until: float


class AdmissionProcess:
    """The process that answers on one socket."""

    def __init__(self, socket: Path, tokens: Path) -> None:
        self._socket, self._tokens = socket, tokens
        self._pid_file = socket.with_suffix(".pid")
        self._process: subprocess.Popen[bytes] | None = None
        self._starting: _Starting | None = None

    def pid(self) -> int | None:
        """Its process id while it lives, whoever started it."""
        try:
            pid = int(self._pid_file.read_text())
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        return pid if os.fsencode(self._socket) in words else None

    def follow(self, patience: float = _START_SECONDS) -> None:
        """Have one of this process's code and tokens answer: one that was left over is replaced, after the new one listens.

        Raises TryAgainError where none listens within `patience` seconds. The next call goes on waiting for it, until it
        has had `_START_SECONDS`; then it is ended, and the next call starts another one.
        """
        if self._process is not None and self._process.poll() is None:
            return
        if self._starting is None:
            if self._process is not None:
                logger(part="gateway").warning("an admission process ended and is started again")
            self._starting = self._start()
        starting, log = self._starting, self._log
        left = max(0.0, min(patience, starting.until - time.monotonic()))
        try:
            wait_until(
                lambda: self.pid() == starting.process.pid or starting.process.poll() is not None,
                left, f"admission (its words: {log})",
            )  # fmt: skip
        except TryAgainError:
            if time.monotonic() >= starting.until:
                self._give_up()
            raise
        self._starting = None
        if starting.process.poll() is not None:
            raise TryAgainError(f"admission ended at once (its words: {log})")
        self._process = starting.process
        if starting.old is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(starting.old, signal.SIGTERM)

    @property
    def _log(self) -> Path:
        return self._socket.parent / "admission.log"

    def _start(self) -> _Starting:
        command = [sys.executable, "-m", _MODULE, str(self._socket), str(self._pid_file), str(self._tokens)]
        old = self.pid()
        process = start(bare(command), self._log, keep=lambda _: None)  # its pid file says which it is
        return _Starting(process, old, time.monotonic() + _START_SECONDS)

    def _give_up(self) -> None:
        """End what does not come to listen: nothing waits for its answer yet."""
        if self._starting is not None:
            self._starting.process.kill()
            self._starting.process.wait()
            self._starting = None

    def stop(self) -> None:
        """End it; what it is judging is judged first."""
        self._give_up()
        for number in (signal.SIGTERM, signal.SIGKILL):
            pid = self.pid()
            if pid is None:
                return
            os.kill(pid, number)
            with contextlib.suppress(TryAgainError):  # SIGKILL comes after a patient SIGTERM
                wait_until(self._ended, _STOP_SECONDS, "the end of admission")

    def _ended(self) -> bool:
        if self._process is not None:
            self._process.poll()
        return self.pid() is None
