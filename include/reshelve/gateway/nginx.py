"""One nginx: its master process is found by its pid file, and lives on when the process that started it dies."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from reshelve.errors import ConfigurationError, TryAgainError
from reshelve.logs import logger
from reshelve.processes import start, wait_until

_VARIABLES = ("PATH", "PYTHONPATH", "VIRTUAL_ENV", "LANG", "LC_ALL", "TZ", "RESHELVE_LOG")

_START_SECONDS = 10.0
_STOP_SECONDS = 10.0


def bare(command: Sequence[str]) -> list[str]:
    """The command without the gateway's environment: what callers reach holds none of its secrets."""
    kept = (f"{name}={os.environ[name]}" for name in _VARIABLES if name in os.environ)
    return ["env", "-i", *kept, *command]


class Nginx:
    """The master process of one configuration."""

    def __init__(
        self, configuration: Path, pid_file: Path, prefix: Path, sockets: Sequence[Path] = ()
    ) -> None:
        """`prefix`: a directory without anything in it; `sockets`: those it listens on, which a killed one leaves."""
        self._configuration, self._pid_file, self._prefix, self._sockets = (
            configuration,
            pid_file,
            prefix,
            sockets,
        )
        self._written = ""

    def pid(self) -> int | None:
        """The master's process id while it lives."""
        try:
            pid = int(self._pid_file.read_text())
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        return pid if os.fsencode(self._configuration) in words else None

    def follow(self, wanted: str) -> None:
        """Have nginx serve by this configuration, where it does not yet.

        Raises ConfigurationError where nginx refuses the very first one; later it serves on with the last good one.
        """
        if wanted == self._written and self.pid() is not None:
            return
        try:
            self._apply(wanted)
        except ConfigurationError as error:
            if self.pid() is None:
                raise
            logger(part="gateway").error("nginx keeps its previous configuration", problem=str(error))
        else:
            logger(part="gateway").info("told nginx", configuration=self._configuration.name)
        self._written = wanted

    def _apply(self, text: str) -> None:
        if (
            self.pid() is not None
            and self._configuration.is_file()
            and self._configuration.read_text() == text
        ):
            return  # taken over from a process that died: reading the same again would close connections
        fresh = self._configuration.with_suffix(".new")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        checked = subprocess.run(
            [*bare(self._command(fresh)), "-t"], capture_output=True, text=True, timeout=30, check=False
        )
        if checked.returncode != 0:
            raise ConfigurationError("nginx refuses its configuration", checked.stderr[-2000:])
        fresh.replace(self._configuration)
        pid = self.pid()
        if pid is not None:
            os.kill(pid, signal.SIGHUP)
            return
        for socket in self._sockets:
            socket.unlink(missing_ok=True)
        log = self._configuration.parent / "nginx.log"
        start(
            bare(self._command(self._configuration)), log, keep=lambda _: None
        )  # its pid file says which it is
        wait_until(lambda: self.pid() is not None, _START_SECONDS, f"nginx (its words: {log})")

    def stop(self) -> None:
        """Let requests under way be answered, then end it."""
        for number in (signal.SIGQUIT, signal.SIGTERM):
            pid = self.pid()
            if pid is None:
                return
            os.kill(pid, number)
            with contextlib.suppress(TryAgainError):  # SIGTERM comes after a patient SIGQUIT
                wait_until(lambda: self.pid() is None, _STOP_SECONDS, "the end of nginx")

    def _command(self, configuration: Path) -> list[str]:
        return ["nginx", "-p", f"{self._prefix}/", "-e", "stderr", "-c", str(configuration)]
