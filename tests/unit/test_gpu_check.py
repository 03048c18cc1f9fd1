"""The GPU check where there is no GPU: it says what it needs, and its data train on a processor."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from reshelve.errors import EXIT_CONFIGURATION
from reshelve.settings import PROJECT
from reshelve.training.batches import read_examples

SCRIPT = PROJECT / "benchmarks" / "gpu_check.sh"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCRIPT, *arguments], capture_output=True, text=True, check=False, timeout=60)


def test_it_tells_its_options() -> None:
    done = run("--help")
    assert done.returncode == 0
    for option in ("--wheels", "--device", "--only", "--answers", "--seconds", "--tiny"):
        assert option in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--device", "tpu"], "--device tpu: expected cuda or cpu"),
        (["--only", "half"], "--only half: expected check or speed"),
        (["--seconds", "soon"], "--seconds soon: expected a whole number"),
        (["--wheels", "/nowhere"], "--wheels /nowhere: no such folder"),
        (["--wheels"], "--wheels needs a value"),
        (["--fast"], "--fast is no option"),
    ],
)
def test_what_it_cannot_do_is_said_before_anything_is_done(arguments: list[str], words: str) -> None:
    done = run(*arguments)
    assert done.returncode == EXIT_CONFIGURATION
    assert words in done.stderr


@pytest.mark.parametrize("kind", ["pair", "next_item"], ids=str)
def test_its_examples_are_what_the_worker_reads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    monkeypatch.syspath_prepend(str(PROJECT / "benchmarks"))
    from gpu_data import TOKENS, write_examples

    examples = write_examples(tmp_path / "examples", kind, 60, 20)
    found = read_examples(examples / "train.parquet", kind)
    assert len(found) == 60
    assert 8 <= found.lengths.min() <= found.lengths.max() <= 39
    assert found.tokens.max() < TOKENS
    if kind == "pair":
        assert found.orders_something()


def test_a_line_of_the_table_compares_with_the_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PROJECT / "benchmarks"))
    from gpu_speed import row

    def one(seconds: float) -> dict[str, float]:
        return {"samples": 100, "seconds": seconds, "first_seconds": 10.0}

    found = {"reshelve": one(1.0), "Trainer": one(2.0), "Trainer, tuned": one(0.5)}
    line = row("MiniLM", 32, 22, found)
    assert line["beside_fastest_trainer"] == 0.5
    assert line["in_the_first_pass"]["Trainer"] == 10.0
    failed = row("MiniLM", 32, 22, found | {"reshelve": {"failed": "exit code 78"}})
    assert failed["beside_fastest_trainer"] is None
    assert failed["failed"] == {"reshelve": "exit code 78"}


def test_a_gradient_that_is_off_fails_its_check(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(PROJECT / "benchmarks"))
    import gpu_check
    import torch

    from reshelve.training.device import Device

    monkeypatch.setattr(gpu_check, "all_jobs", lambda: [("pair", "pair", {})])
    gpu_check.write_base(tmp_path / "base", "tiny")
    gpu_check.write_examples(tmp_path / "examples-pair", "pair", 60, 20)
    monkeypatch.setattr(gpu_check, "BF16", 1e-6)  # less than bf16 can be off by
    checks = gpu_check.Checks()
    gpu_check.check_gradients(checks, tmp_path, Device(torch.device("cpu"), bf16=False))
    assert [one["passed"] for one in checks.found] == [True, False]
