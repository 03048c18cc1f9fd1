"""Start and stop real processes without leaving any behind: own groups, bounded waits, death with the parent."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from reshelve.errors import AlreadyRunningError, TryAgainError

_PR_SET_PDEATHSIG = 1
_LOW_PRIORITY = 15  # of 19


def die_with_parent() -> None:
    """Ask the kernel to terminate this process when its parent dies, where `RESHELVE_DIE_WITH_PARENT=1` says so.

    SIGKILL of a scheduler would otherwise orphan a training run.
    """
    if os.environ.get("RESHELVE_DIE_WITH_PARENT") == "1":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() == 1:  # the parent was gone before the kernel knew
            os.kill(os.getpid(), signal.SIGTERM)


def yield_to_others(niceness: int = _LOW_PRIORITY) -> None:
    """Give this thread, and those that it starts, a lower priority: what serves on the same processors goes first.

    `niceness`: 0 to 19; a thread that has a lower priority already keeps it.
    """
    thread = threading.get_native_id()
    os.setpriority(os.PRIO_PROCESS, thread, max(niceness, os.getpriority(os.PRIO_PROCESS, thread)))


@contextmanager
def only_one(lock: Path, what: str) -> Iterator[None]:
    """Holds a lock file while the block runs; the kernel lets it go when the process dies.

    Raises AlreadyRunningError where another process holds it: `what`, "agent", keeps that directory.
    """
    with lock.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AlreadyRunningError(f"{lock.parent}: another {what} keeps this directory") from error
        yield


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nothing listens on right now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def port_is_open(port: int, host: str = "127.0.0.1") -> bool:
    """Whether something accepts connections there."""
    with socket.socket() as caller:
        caller.settimeout(0.5)
        return caller.connect_ex((host, port)) == 0


def wait_until(ready: Callable[[], bool], seconds: float, what: str, every: float = 0.1) -> None:
    """Poll until `ready()`. Raises TryAgainError naming `what` when the time is over."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise TryAgainError(f"{what} was not ready within {seconds:g} s")
        time.sleep(every)


def start(
    command: Sequence[str], log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own, its output appended to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            start_new_session=True,
        )


def stop_group(pid: int, grace_seconds: float = 10) -> None:
    """Terminate the process group led by `pid`; kill what is left after the grace. Nothing there is no error."""
    for number, wait in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(pid, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + wait
        while time.monotonic() < deadline:
            if not _group_lives(pid):
                return
            time.sleep(0.05)


def _group_lives(group: int) -> bool:
    """Whether a process of the group still runs; the dead that wait for their parent are reaped or do not count."""
    with contextlib.suppress(ChildProcessError):  # not our child: whoever started it reaps it
        os.waitpid(-group, os.WNOHANG)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == group and fields[0] != "Z":
                return True
    return False
