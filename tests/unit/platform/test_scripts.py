"""The set-up says what is missing; reset deletes only what the project made."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from reshelve.settings import PROJECT

pytestmark = pytest.mark.slow  # starts processes

TOOLS = (
    "bash",
    "dirname",
    "sha256sum",
    "cut",
    "cat",
    "flock",
    "uname",
    "df",
    "awk",
    "python3.11",
    "make",
    "g++",
)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "locks").mkdir()
    for name in (
        "locks/packages.lock",
        "locks/torch-cpu.lock",
        "pyproject.toml",
        "scripts/setup.sh",
        "scripts/build_horovod.sh",
    ):
        shutil.copy(PROJECT / name, tmp_path / name)
    return tmp_path


def set_up(clone: Path, without: str) -> subprocess.CompletedProcess[str]:
    """Run the set-up where PATH has everything but one tool."""
    tools = clone / "tools"
    tools.mkdir()
    for name in TOOLS:
        # The interpreter itself: a version manager's shim would need more than this PATH.
        found = (
            getattr(sys, "_base_executable", sys.executable) if name == "python3.11" else shutil.which(name)
        )
        if found and name != without:
            (tools / name).symlink_to(found)
    return subprocess.run(
        [clone / "scripts" / "setup.sh"],
        env={"PATH": str(tools)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("tool", "message"),
    [
        ("python3.11", "Python 3.11 is missing: install it"),
        ("g++", "a C++ compiler is missing: install g++"),
        ("make", "make is missing: install it"),
    ],
)
def test_a_missing_tool_is_named_with_what_to_do(clone: Path, tool: str, message: str) -> None:
    done = set_up(clone, tool)
    assert done.returncode == 78
    assert message in done.stderr
    assert not (clone / ".venv").exists()


def reset(home: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "RESHELVE_HOME": str(home)}
    return subprocess.run(
        [PROJECT / "scripts" / "reset.sh"], env=environment, capture_output=True, text=True, check=False
    )


def test_reset_refuses_a_directory_that_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    done = reset(tmp_path)
    assert done.returncode == 78
    assert "nothing is deleted" in done.stderr
    assert (tmp_path / "logs").is_dir()


def test_reset_keeps_a_persons_own_files(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "work" / "recommend").mkdir(parents=True)
    (home / "platform.json").write_text("{}")
    (home / "notes.txt").write_text("mine")
    assert reset(home).returncode == 0
    assert [path.name for path in home.iterdir()] == ["notes.txt"]


def test_reset_twice_is_fine(tmp_path: Path) -> None:
    (tmp_path / "home" / "work").mkdir(parents=True)
    assert reset(tmp_path / "home").returncode == 0
    assert not (tmp_path / "home").exists()
    assert reset(tmp_path / "home").returncode == 0
