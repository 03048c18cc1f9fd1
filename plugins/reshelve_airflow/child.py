"""One verb of the `reshelve` command as a child process that never outlives the one who waits for it."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

import psutil

from reshelve.errors import EXIT_CONFIGURATION, EXIT_DATA, EXIT_PARTLY_DONE
from reshelve.processes import guarded, stop_group

NEVER_RETRY = (EXIT_DATA, EXIT_PARTLY_DONE, EXIT_CONFIGURATION)
MOST_OUTPUT = 8 * 1024 * 1024
TAIL_LINES = 20
_LAST_SECONDS = 1.0


def arguments(options: Mapping[str, Any]) -> list[str]:
    """`{"ranker": "search", "dry-run": False, "set": ["a=1", "b=2"], "to": None}` →
    `--ranker=search --no-dry-run --set=a=1 --set=b=2`: one word each, so that no value can pass for an option."""
    found: list[str] = []
    for name, value in options.items():
        if value is None:
            continue
        if isinstance(value, bool):
            found.append(f"--{name}" if value else f"--no-{name}")
            continue
        for one in value if isinstance(value, list | tuple) else [value]:
            found.append(f"--{name}={one}")
    return found


def verb_command(verb: str, options: Mapping[str, Any]) -> list[str]:
    """The command line of a verb, with `--json`."""
    return [sys.executable, "-m", "reshelve.cli", *verb.split(), *arguments(options), "--json"]


@dataclass(frozen=True)
class Outcome:
    """How a child ended: its exit code (negative: the signal), the object it printed, the last lines of its log."""

    code: int
    result: dict[str, Any] | None
    tail: tuple[str, ...]

    @property
    def headline(self) -> str:
        """What a person should read first: the command's own words where it said them."""
        for place, line in enumerate(self.tail):
            if line.startswith("reshelve: "):
                return "\n".join([line.removeprefix("reshelve: "), *self.tail[place + 1 :]])
        if self.code < 0:
            return f"the process was ended by {signal.Signals(-self.code).name}"
        last = "\n".join(self.tail[-5:]) or "it wrote nothing"
        return f"the process ended with exit code {self.code}:\n{last}"

    @property
    def never_retry(self) -> bool:
        """Bad data or bad configuration: the same run would end the same way."""
        return self.code in NEVER_RETRY

    @property
    def may_retry(self) -> bool:
        """It failed, and the same run may end better."""
        return self.code != 0 and not self.never_retry


class Child:
    """A process in a group of its own. `run` streams its stderr by lines; `kill` takes under five seconds."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        self.command = list(command)
        self.env = {**os.environ, "RESHELVE_DIE_WITH_PARENT": "1", "PYTHONUNBUFFERED": "1", **(env or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, on_line: Callable[[str], None]) -> Outcome:
        """Start, wait, and leave nothing behind, whatever is raised meanwhile."""
        self._process = process = subprocess.Popen(
            guarded(self.command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.env,
            start_new_session=True,
        )
        tail: deque[str] = deque(maxlen=TAIL_LINES)

        def hear(line: str) -> None:
            tail.append(line)
            on_line(line)

        try:
            output = self._stream(process, hear)
            code = process.wait()
        finally:
            self.kill()
        return Outcome(code, parse_result(output), tuple(tail))

    def kill(self) -> None:
        """Terminate the group, then kill what is left of it and of its descendants in other sessions."""
        process = self._process
        if process is None:
            return
        strays = _descendants(process.pid)
        stop_group(process.pid, grace_seconds=3)
        for stray in strays:
            if stray.is_running():
                stray.kill()
        # A killed process ends when the system next gets to it: who is told that nothing is left must find it so.
        deadline = time.monotonic() + _LAST_SECONDS
        while any(_lives(stray) for stray in strays) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.poll()

    @staticmethod
    def _stream(process: subprocess.Popen[bytes], on_line: Callable[[str], object]) -> bytes:
        """Hand on stderr line by line until the process ends; return its stdout.

        Ends with the process, not with the pipes: a grandchild may hold those open for ever.
        """
        assert process.stdout and process.stderr
        output, rest = bytearray(), b""
        with selectors.DefaultSelector() as selector:
            for pipe in (process.stdout, process.stderr):
                os.set_blocking(pipe.fileno(), False)
                selector.register(pipe, selectors.EVENT_READ)
            while selector.get_map():
                over = process.poll() is not None
                ready = selector.select(timeout=0 if over else 0.5)
                for key, _ in ready:
                    chunk = _read(key.fileobj)  # type: ignore[arg-type]
                    if not chunk:
                        selector.unregister(key.fileobj)
                    elif key.fileobj is process.stdout:
                        output += chunk[: MOST_OUTPUT - len(output)]
                    else:
                        *lines, rest = (rest + chunk).split(b"\n")
                        for line in lines:
                            on_line(line.decode(errors="replace"))
                if over and not ready:
                    break
        if rest:
            on_line(rest.decode(errors="replace"))
        process.stdout.close()
        process.stderr.close()
        return bytes(output)


def parse_result(output: bytes) -> dict[str, Any] | None:
    """The one JSON object on stdout, or None where there is none."""
    lines = [line for line in output.decode(errors="replace").splitlines() if line.strip()]
    if not lines:
        return None
    try:
        found = json.loads(lines[-1])
    except json.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def _read(pipe: IO[bytes]) -> bytes:
    return os.read(pipe.fileno(), 65536)


def _lives(process: psutil.Process) -> bool:
    """Whether it runs; one that only waits to be reaped does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _descendants(pid: int) -> list[psutil.Process]:
    """Every process below `pid`; psutil compares start times, so a reused id is never hit."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
