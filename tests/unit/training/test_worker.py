"""The training loop, run as the real processes that a night runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from reshelve.errors import ConfigurationError, DataError, TryAgainError
from reshelve.rankers import Kind, Ranker
from reshelve.training import spec as names
from reshelve.training.launch import run_job
from reshelve.training.model import RankerModel
from reshelve.training.spec import TrainingSpec, training_spec

MakeRanker = Callable[..., Ranker]
WriteExamples = Callable[..., Path]


@pytest.fixture
def job(tmp_path: Path, tiny_base: Path, make_ranker: MakeRanker, write_examples: WriteExamples) -> Callable[..., TrainingSpec]:
    """A training job over tiny examples, in a directory of its own."""

    def make(name: str, kind: Kind = Kind.NEXT_ITEM, **values: object) -> TrainingSpec:
        examples = tmp_path / f"examples-{kind}"
        if not examples.is_dir():
            write_examples(examples, kind)
        output = tmp_path / name
        output.mkdir()
        ranker = make_ranker(kind, **values)
        return training_spec(ranker, identity="tiny", base=tiny_base, examples=examples, output=output)

    return make


def weights(output: Path) -> dict[str, torch.Tensor]:
    return load_file(output / "model.safetensors")


def assert_same_weights(one: Path, other: Path) -> None:
    left, right = weights(one), weights(other)
    assert left.keys() == right.keys()
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=1e-5, atol=1e-6, msg=name)


def workers_of(output: Path) -> list[psutil.Process]:
    """Every live process that names this job's spec: launcher, Horovod's go-betweens and workers."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if str(output / names.SPEC) in " ".join(process.info["cmdline"] or ()) and process.pid != os.getpid():
            found.append(process)
    return found


def assert_none_left(output: Path, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while workers_of(output):
        assert time.monotonic() < deadline, workers_of(output)
        time.sleep(0.1)


def kill_at_checkpoint(output: Path, number: int) -> threading.Thread:
    """In the background: once a checkpoint is there, send `number` to the worker itself."""

    def wait_and_kill() -> None:
        while not (output / names.CHECKPOINT).is_file():
            time.sleep(0.01)
        for process in workers_of(output):
            if "reshelve.training.worker" in process.cmdline() and "-np" not in process.cmdline():
                process.send_signal(number)

    thread = threading.Thread(target=wait_and_kill)
    thread.start()
    return thread


def test_a_job_learns_and_writes_what_the_contract_names(job: Callable[..., TrainingSpec]) -> None:
    spec = job("night")
    result = run_job(spec, threads=1)
    assert result["steps"] == result["steps_planned"] == 40
    assert result["validation_loss"] < result["first_validation_loss"]
    assert result["device"].startswith(("cpu (1 threads", "cuda"))
    points = json.loads((spec.output / "curve.json").read_text())
    assert points[0]["step"] == 0 and points[-1]["validation_loss"] == pytest.approx(result["validation_loss"], abs=1e-5)
    progress = json.loads((spec.output / names.PROGRESS).read_text())
    assert progress["step"] == progress["steps"] == 40 and progress["seconds_left"] == 0
    events = [event for path in (spec.output / "tensorboard").iterdir() for event in EventFileLoader(str(path)).Load()]
    assert {value.tag for event in events for value in event.summary.value} >= {"train/loss", "train/validation_loss"}
    model = RankerModel.load(spec.output)
    assert model(torch.tensor([[2, 5, 3]]), torch.ones(1, 3, dtype=torch.long)).shape == (1, 17)
    assert not (spec.output / names.CHECKPOINT).exists()
    assert run_job(spec, threads=1) == result  # done: nothing is started again


def test_kill_9_in_the_middle_then_a_retry_gives_the_weights_of_an_undisturbed_job(
    job: Callable[..., TrainingSpec],
) -> None:
    values = {"training.epochs": 20, "training.checkpoint_seconds": 0.05}
    undisturbed, disturbed = job("undisturbed", **values), job("disturbed", **values)
    run_job(undisturbed, threads=1)
    killer = kill_at_checkpoint(disturbed.output, signal.SIGKILL)
    with pytest.raises(TryAgainError, match="cut off"):
        run_job(disturbed, threads=1)
    killer.join()
    assert_none_left(disturbed.output)
    assert not (disturbed.output / "model.safetensors").exists()
    result = run_job(disturbed, threads=1)
    assert result["steps"] == 400
    assert_same_weights(undisturbed.output, disturbed.output)
    steps = [point["step"] for point in json.loads((disturbed.output / "curve.json").read_text())]
    assert steps == sorted(steps) and steps[0] == 0
