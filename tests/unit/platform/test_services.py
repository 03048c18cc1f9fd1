"""Only what was started is ever stopped, and all of it."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from reshelve.platform.services import PlatformState, Service, memory_mib
from reshelve.processes import start, wait_until

pytestmark = pytest.mark.slow  # starts processes

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
WITH_CHILD = [
    sys.executable,
    "-c",
    "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); time.sleep(60)",
]


def started(command: list[str], log: Path) -> Service:
    return Service.of("one", start(command, log), log)


def test_a_killed_service_is_dead_even_before_its_parent_reaps_it(tmp_path: Path) -> None:
    service = started(SLEEP, tmp_path / "log")
    assert service.lives()
    os.kill(service.pid, signal.SIGKILL)
    wait_until(lambda: not service.lives(), 5, "the end")


@pytest.mark.parametrize("form", ["this version's", "an older version's"])
def test_a_reused_pid_is_another_process(tmp_path: Path, form: str) -> None:
    service = started(SLEEP, tmp_path / "log")
    assert service.start is not None
    before = service.start.model_copy(update={"ticks": service.start.ticks - 100})
    changed = (
        {"start": before} if form == "this version's" else {"start": None, "created": service.created - 100}
    )
    stranger = service.model_copy(update=changed)
    try:
        assert not stranger.lives()
        stranger.stop()
        assert service.lives()
        assert memory_mib(stranger) == 0
    finally:
        service.stop()


def test_whoever_sets_the_clock_kills_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = started(SLEEP, tmp_path / "log")
    try:
        true = psutil.Process.create_time
        monkeypatch.setattr(psutil.Process, "create_time", lambda self: true(self) + 7200)
        assert service.lives() and service.processes()
    finally:
        monkeypatch.undo()
        service.stop()
    assert not service.lives()


def test_the_same_number_and_ticks_after_the_machine_has_booted_anew_are_another_process(
    tmp_path: Path,
) -> None:
    service = started(SLEEP, tmp_path / "log")
    try:
        assert service.start is not None
        boot = service.start.model_copy(update={"boot": "another"})
        assert not service.model_copy(update={"start": boot}).lives()
    finally:
        service.stop()


def test_a_list_by_an_older_version_is_read(tmp_path: Path) -> None:
    service = started(SLEEP, tmp_path / "log")
    try:
        older = service.model_dump(mode="json", exclude={"start"})
        (tmp_path / "platform.json").write_text(json.dumps({"services": {"one": older}}))
        assert PlatformState.read(tmp_path).services["one"].lives()
    finally:
        service.stop()


def test_stopping_a_dead_leader_ends_what_it_left_behind(tmp_path: Path) -> None:
    service = started(WITH_CHILD, tmp_path / "log")
    wait_until(lambda: len(service.processes()) == 2, 10, "the child")
    child = service.processes()[1]
    os.kill(service.pid, signal.SIGKILL)
    os.waitpid(service.pid, 0)
    assert child.is_running()
    service.stop()
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_stop_kills_what_ignores_the_request(tmp_path: Path) -> None:
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    service = started([sys.executable, "-c", stubborn], tmp_path / "log")
    wait_until(lambda: bool((tmp_path / "log").read_text()), 10, "the handler")
    service.stop(grace_seconds=0.3)
    assert not service.lives()


def test_the_state_survives(tmp_path: Path) -> None:
    service = Service(name="one", pid=1, created=time.time(), log=tmp_path / "log", address="127.0.0.1:1")
    PlatformState.read(tmp_path).with_service(service).write(tmp_path)
    assert PlatformState.read(tmp_path).services == {"one": service}
