"""Start, replace and stop an admission process. It lives on when the gateway's own process dies, as nginx does."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from reshelve.errors import TryAgainError
from reshelve.gateway.nginx import bare
from reshelve.logs import logger
from reshelve.processes import start, wait_until

_MODULE = "reshelve.gateway.admission_server"
_START_SECONDS = 30.0
_STOP_SECONDS = 10.0


class AdmissionProcess:
    """The process that answers on one socket."""

    def __init__(self, socket: Path, tokens: Path) -> None:
        self._socket, self._tokens = socket, tokens
        self._pid_file = socket.with_suffix(".pid")
        self._process: subprocess.Popen[bytes] | None = None

    def pid(self) -> int | None:
        """Its process id while it lives, whoever started it."""
        try:
            pid = int(self._pid_file.read_text())
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        return pid if os.fsencode(self._socket) in words else None

    def follow(self) -> None:
        """Have one of this process's code and tokens answer: one that was left over is replaced, after the new one listens.

        Raises TryAgainError where none starts.
        """
        if self._process is not None and self._process.poll() is None:
            return
        old = self.pid()
        if self._process is not None:
            logger(part="gateway").warning("an admission process ended and is started again")
        log = self._socket.parent / "admission.log"
        command = [sys.executable, "-m", _MODULE, str(self._socket), str(self._pid_file), str(self._tokens)]
        process = start(bare(command), log, keep=lambda _: None)  # its pid file says which it is
        wait_until(
            lambda: self.pid() == process.pid or process.poll() is not None,
            _START_SECONDS, f"admission (its words: {log})",
        )  # fmt: skip
        if process.poll() is not None:
            raise TryAgainError(f"admission ended at once (its words: {log})")
        self._process = process
        if old is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(old, signal.SIGTERM)

    def stop(self) -> None:
        """End it; what it is judging is judged first."""
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
