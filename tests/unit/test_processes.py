"""Processes are stopped with all their children, and die with their parent."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from reshelve.errors import TryAgainError
from reshelve.processes import free_port, guarded, port_is_open, start, stop_group, wait_until

pytestmark = pytest.mark.slow  # starts processes

TREE = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); print('up', flush=True); time.sleep(60)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"


@pytest.mark.parametrize(
    "program", [pytest.param(TREE, id="with-children"), pytest.param(STUBBORN, id="ignores-sigterm")]
)
def test_a_group_is_stopped_whole(tmp_path: Path, program: str) -> None:
    process = start([sys.executable, "-c", program], tmp_path / "log")
    wait_until(lambda: "up" in (tmp_path / "log").read_text(), 20, "the process")
    members = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    stop_group(process.pid, grace_seconds=0.5)
    assert not any(member.is_running() and member.status() != psutil.STATUS_ZOMBIE for member in members)


def test_stopping_what_is_gone_is_no_error(tmp_path: Path) -> None:
    process = start([sys.executable, "-c", "pass"], tmp_path / "log")
    process.wait()
    stop_group(process.pid)


def test_a_child_dies_with_a_killed_parent(tmp_path: Path) -> None:
    child = "from reshelve.processes import die_with_parent; import os, time; die_with_parent(); print(os.getpid(), flush=True); time.sleep(60)"
    parent = subprocess.Popen(
        [sys.executable, "-c", f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"],
        env={**os.environ, "RESHELVE_DIE_WITH_PARENT": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the child outlived its parent"
        time.sleep(0.05)


# Starts a family in a thread that ends, says which, and ends as it is told to.
STARTER = """
import pathlib, signal, sys, threading, time
from reshelve.processes import start
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and Python would inherit that
log = pathlib.Path(sys.argv[1])
def begin():
    start([sys.executable, "-c", sys.argv[2]], log, keep=print if sys.argv[3] == "outlives" else None)
thread = threading.Thread(target=begin)
thread.start()
thread.join()
while "up" not in log.read_text():
    time.sleep(0.05)
print("started", flush=True)
if sys.argv[4] == "raise":
    raise ValueError
time.sleep(60)
"""


def family(mark: str) -> list[psutil.Process]:
    """The live processes whose environment has the mark."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("FAMILY") == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


@pytest.mark.parametrize(
    ("program", "how"),
    [
        *[
            pytest.param(TREE, how, id=f"a family, {how}")
            for how in ("SIGTERM", "SIGINT", "SIGKILL", "raise")
        ],
        pytest.param(STUBBORN, "SIGKILL", id="what ignores SIGTERM, SIGKILL"),
    ],
)
def test_what_was_started_ends_with_who_started_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, how: str
) -> None:
    monkeypatch.setenv("FAMILY", str(tmp_path))
    command = [sys.executable, "-c", STARTER, str(tmp_path / "log"), program, "ends", how]
    starter = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert starter.stdout is not None and starter.stdout.readline() == b"started\n"
    assert len(family(str(tmp_path))) >= 2 or how == "raise"
    if how != "raise":
        starter.send_signal(signal.Signals[how])
    starter.wait(10)
    wait_until(lambda: not family(str(tmp_path)), 15, f"the end of {family(str(tmp_path))}")


POOL = """
import os, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from reshelve.processes import end_with
if __name__ == "__main__":
    with ProcessPoolExecutor(2, get_context("spawn"), initializer=end_with, initargs=(os.getpid(),)) as pool:
        pool.submit(pow, 2, 3).result()
        print("started", flush=True)
        time.sleep(60)
"""


def test_a_pool_ends_with_who_made_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its processes wait on a pipe that they hold open themselves."""
    monkeypatch.setenv("FAMILY", str(tmp_path))
    (tmp_path / "pool.py").write_text(POOL)
    owner = subprocess.Popen([sys.executable, str(tmp_path / "pool.py")], stdout=subprocess.PIPE)
    assert owner.stdout is not None and owner.stdout.readline() == b"started\n"
    assert len(family(str(tmp_path))) >= 2
    owner.kill()
    owner.wait()
    wait_until(lambda: not family(str(tmp_path)), 15, f"the end of {family(str(tmp_path))}")


def test_a_service_outlives_who_started_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAMILY", str(tmp_path))
    command = [sys.executable, "-c", STARTER, str(tmp_path / "log"), TREE, "outlives", "sleep"]
    starter = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert starter.stdout is not None and b"Popen" in starter.stdout.readline()
    assert starter.stdout.readline() == b"started\n"
    starter.kill()
    starter.wait()
    time.sleep(0.5)  # nothing is to happen
    left = family(str(tmp_path))
    try:
        assert len(left) == 2
    finally:
        for process in left:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_comes_while_a_process_is_made_leaves_no_orphan(
    tmp_path: Path, number: signal.Signals
) -> None:
    """It takes effect once somebody knows of the process."""
    script = """if True:
        import os, pathlib, signal, subprocess, sys
        from reshelve import processes

        class Interrupted(subprocess.Popen):
            def __init__(self, *args, **kwargs):
                super().__init__(*args, **kwargs)
                os.kill(os.getpid(), int(sys.argv[2]))

        known = pathlib.Path(sys.argv[1])
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        signal.signal(signal.SIGINT, signal.default_int_handler)  # tests behind a shell's `&` ignore it
        subprocess.Popen = Interrupted
        try:
            processes.start(["sleep", "300"], known.with_name("log"), keep=lambda one: known.write_text(str(one.pid)))
        except (KeyboardInterrupt, SystemExit) as interrupted:
            sys.exit(f"{type(interrupted).__name__} with {known.exists()}")
        """
    known = tmp_path / "known"
    told = subprocess.run(
        [sys.executable, "-c", script, str(known), str(int(number))],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    interrupted = "KeyboardInterrupt" if number is signal.SIGINT else "SystemExit"
    assert told.stderr.strip() == f"{interrupted} with True"
    stop_group(int(known.read_text()))


def test_what_ended_leaves_no_watcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAMILY", str(tmp_path))
    done = subprocess.run(
        guarded([sys.executable, "-c", "import sys; print(1); sys.exit(7)"]), capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (7, b"1\n")  # and the pipe was closed: nothing else held it
    wait_until(lambda: not family(str(tmp_path)), 5, "the end of the watcher")


@pytest.mark.parametrize("kept", [False, True], ids=["ends with us", "outlives us"])
def test_what_a_child_writes_is_its_owners_alone(tmp_path: Path, kept: bool) -> None:
    before = os.umask(0o022)  # as a person's shell has it
    try:
        keep = (lambda process: None) if kept else None
        process = start(
            ["sh", "-c", f"mkdir {tmp_path}/made && touch {tmp_path}/made/file"], tmp_path / "log", keep=keep
        )
        assert process.wait() == 0
    finally:
        os.umask(before)
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "made" / "file").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_a_guarded_command_has_our_umask_whoever_starts_it(tmp_path: Path) -> None:
    """Most places start it themselves, and say no umask."""
    made = tmp_path / "made"
    before = os.umask(0o022)
    try:
        subprocess.run(guarded(["mkdir", str(made)]), check=True)
    finally:
        os.umask(before)
    assert made.stat().st_mode & 0o777 == 0o700


def test_a_verb_closes_a_home_that_was_open_and_leaves_public_keys_readable(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    home.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RESHELVE_")}
    subprocess.run(
        ["sh", "-c", 'umask 022; exec "$@"', "sh", sys.executable, "-m", "reshelve.cli", "keys", "make"],
        env={**environment, "RESHELVE_HOME": str(home)},
        capture_output=True,
        check=True,
    )
    assert home.stat().st_mode & 0o777 == 0o700
    keys = home / "keys"
    assert keys.stat().st_mode & 0o777 == 0o700
    assert (keys / "trusted").stat().st_mode & 0o777 == 0o755
    assert {path.stat().st_mode & 0o777 for path in (keys / "trusted").iterdir()} == {0o644}


def test_every_process_is_started_by_what_gives_it_its_umask() -> None:
    """A new place that starts processes has to be looked at, and put here with the reason why it is right."""
    right = {
        "include/reshelve/gateway/nginx.py": "checks a configuration, writes nothing",
        "include/reshelve/guard.py": "becomes the command, after its umask",
        "include/reshelve/pipeline/pinned_code.py": "a verb becomes the same verb, which keeps its umask",
        "include/reshelve/processes.py": "says the umask",
    }
    starts = re.compile(
        r"(subprocess\.(Popen|run|call|check_\w+)|os\.exec\w+|os\.spawn\w+|create_subprocess_\w+)\(\s*(guarded\()?"
    )
    root = Path(__file__).parents[2]
    bare = {
        str(path.relative_to(root))
        for folder in ("include/reshelve", "plugins", "dags")
        for path in (root / folder).rglob("*.py")
        if any(not found.group(3) for found in starts.finditer(path.read_text()))
    }
    assert bare == set(right)


def test_a_program_that_is_missing_is_named(tmp_path: Path) -> None:
    assert start(["no-such-program"], tmp_path / "log").wait() == 127
    assert "no-such-program: No such file or directory" in (tmp_path / "log").read_text()


def test_a_child_that_began_after_the_end_of_its_parent_does_not_run(tmp_path: Path) -> None:
    late = guarded(["touch", str(tmp_path / "ran")])
    late[late.index(str(os.getpid()))] = str(2**22 + 1)  # no process has it
    assert subprocess.run(late, check=False).returncode == 127
    assert not (tmp_path / "ran").exists()


def test_waiting_is_bounded_and_names_what_was_missing() -> None:
    with pytest.raises(TryAgainError, match=r"the scheduler was not ready within 0\.2 s"):
        wait_until(lambda: False, 0.2, "the scheduler")


def test_a_free_port_is_free() -> None:
    assert not port_is_open(free_port())
