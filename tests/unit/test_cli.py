"""The command's contract with machines: one JSON object on stdout, logs on stderr, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from reshelve.errors import ConfigurationError
from reshelve.store.objects import ObjectStore
from reshelve.verbs.options import overrides


def reshelve(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "reshelve.cli", *arguments], capture_output=True, text=True, check=False
    )


def test_overrides_are_yaml_values() -> None:
    assert overrides(["training.epochs=2", "release.automatic=false", "compression.steps=[]"]) == {
        "training.epochs": 2,
        "release.automatic": False,
        "compression.steps": [],
    }
    with pytest.raises(ConfigurationError, match="expected path=value"):
        overrides(["training.epochs"])


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
