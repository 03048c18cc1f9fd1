"""The admission processes: as many connections as the system allows, and a start that keeps nobody waiting."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from reshelve.errors import TryAgainError
from reshelve.gateway import admission_process
from reshelve.gateway.admission_process import AdmissionProcess
from reshelve.processes import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def admission(tmp_path: Path) -> Iterator[AdmissionProcess]:
    made = AdmissionProcess(tmp_path / "admission1.sock", tmp_path / "tokens.json")
    yield made
    made.stop()


def processes_of(directory: Path) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:  # ended meanwhile
                continue
            if os.fsencode(directory / "admission1.sock") in words:
                found.append(entry.name)
    return found


def test_it_may_open_as_many_files_as_the_system_allows(admission: AdmissionProcess) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        admission.follow()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    pid = admission.pid()
    assert pid is not None
    assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == (hard, hard)


def test_a_start_that_takes_long_is_waited_for_a_little_at_a_time(
    admission: AdmissionProcess, tmp_path: Path
) -> None:
    with pytest.raises(TryAgainError):
        admission.follow(0.0)
    wait_until(lambda: len(processes_of(tmp_path)) == 1, 30, "the process to be what it was started as")
    (starting,) = processes_of(tmp_path)
    admission.follow()
    assert str(admission.pid()) == starting, "the same one"


def test_what_does_not_start_is_ended(
    admission: AdmissionProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission_process, "_START_SECONDS", 0.0)
    with pytest.raises(TryAgainError):
        admission.follow(0.0)
    assert processes_of(tmp_path) == []
    monkeypatch.undo()
    admission.follow()
    assert len(processes_of(tmp_path)) == 1
