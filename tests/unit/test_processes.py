"""Processes are stopped with all their children, and die with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from reshelve.errors import TryAgainError
from reshelve.processes import free_port, port_is_open, start, stop_group, wait_until

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


def test_waiting_is_bounded_and_names_what_was_missing() -> None:
    with pytest.raises(TryAgainError, match=r"the scheduler was not ready within 0\.2 s"):
        wait_until(lambda: False, 0.2, "the scheduler")


def test_a_free_port_is_free() -> None:
    assert not port_is_open(free_port())
