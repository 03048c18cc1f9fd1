"""Start and stop real processes without leaving any behind: own groups, bounded waits, death with the parent."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from reshelve import guard
from reshelve.errors import EXIT_TRY_AGAIN, AlreadyRunningError, TryAgainError
from reshelve.files import OTHERS, take_lock

_PR_SET_PDEATHSIG = 1
_LOW_PRIORITY = 15  # of 19

Keep = Callable[[subprocess.Popen[bytes]], None]
"""Is told at once of a process that is to outlive this one: somebody has to know of it, to stop it."""


def die_with_parent() -> None:
    """Ask the kernel to terminate this process when its parent dies, where `RESHELVE_DIE_WITH_PARENT=1` says so.

    SIGKILL of a scheduler would otherwise orphan a training run.
    """
    if os.environ.get("RESHELVE_DIE_WITH_PARENT") == "1":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() == 1:  # the parent was gone before the kernel knew
            os.kill(os.getpid(), signal.SIGTERM)


def end_with(pid: int) -> None:
    """Leave (75) when that process has ended, however it did: for a process that it did not start by itself."""
    try:
        ended = os.pidfd_open(pid)
    except ProcessLookupError:
        os._exit(EXIT_TRY_AGAIN)

    def wait() -> None:
        select.select([ended], [], [])
        os._exit(EXIT_TRY_AGAIN)

    threading.Thread(target=wait, daemon=True).start()


def yield_to_others(niceness: int = _LOW_PRIORITY) -> None:
    """Give this thread, and those that it starts, a lower priority: what serves on the same processors goes first.

    `niceness`: 0 to 19; a thread that has a lower priority already keeps it.
    """
    thread = threading.get_native_id()
    os.setpriority(os.PRIO_PROCESS, thread, max(niceness, os.getpriority(os.PRIO_PROCESS, thread)))


@contextmanager
def only_one(lock: Path, what: str, about: str = "") -> Iterator[None]:
    """Holds a lock file while the block runs; the kernel lets it go when the process dies.

    Raises AlreadyRunningError where another process holds it: `what`, "agent", is at work there; its detail is what that
    one said `about` itself.
    """
    with lock.open("a+") as handle:
        if not take_lock(handle):
            handle.seek(0)
            raise AlreadyRunningError(f"another {what} is running in {lock.parent}", handle.read().strip())
        handle.truncate(0)
        handle.write(about)
        handle.flush()
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


def guarded(command: Sequence[str]) -> list[str]:
    """The same command, which the kernel and `reshelve.guard` end when this process ends, by whatever signal.

    It keeps its process id and leads a group of its own. A program that is missing ends with 127 and its name on stderr.
    """
    return [sys.executable, "-I", "-S", guard.__file__, str(os.getpid()), *command]


def start(
    command: Sequence[str],
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    keep: Keep | None = None,
    *,
    inherit: bool = True,
) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own, its output appended to `log`.

    It ends with this process, however that ends, unless somebody will `keep` it. `env` is added to this process's
    environment; without `inherit` it is all that the new one has.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab", opener=_of_owner) as output, _signals_later():
        process = subprocess.Popen(
            list(command) if keep else guarded(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**(os.environ if inherit else {}), **(env or {})},
            cwd=cwd,
            start_new_session=True,
            umask=OTHERS,
        )
        if keep:
            keep(process)
    return process


@contextmanager
def _signals_later() -> Iterator[None]:
    """Holds Ctrl-C and SIGTERM back while the block runs: between a process and the note of it, one would be an orphan."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is interrupted
        return
    came: list[int] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    heard = {number: handler for number, handler in handlers.items() if handler not in (None, signal.SIG_IGN)}
    for number in heard:
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in heard.items():
            signal.signal(number, handler)
        for late in came:
            signal.raise_signal(late)


def _of_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


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


def stop_children() -> None:
    """Stop every process that this one started, each with its group, before what they write to is removed."""
    for child in psutil.Process().children():
        stop_group(child.pid)


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
