"""The real processes of a night's training: killed, stopped, multiplied; and never left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from reshelve.config.ranker import Ranker
from reshelve.errors import ConfigurationError, DataError, TryAgainError
from reshelve.lineage.run import Run, run_stage
from reshelve.store.objects import ObjectStore
from reshelve.training import spec as names
from reshelve.training.launch import train
from reshelve.training.spec import training_spec

pytestmark = pytest.mark.slow  # each starts Horovod and imports torch in new processes

MakeRun = Callable[..., Run]


@pytest.fixture
def make_run(
    store: ObjectStore,
    tmp_path: Path,
    make_ranker: Callable[..., Ranker],
    write_examples: Callable[..., Path],
) -> MakeRun:
    """A run whose examples stage is done."""

    def make(name: str = "work", **values: object) -> Run:
        run = Run(make_ranker("next_item", **values), date(2011, 8, 30), store, tmp_path / name)
        if run.stage("examples").result() is None:
            write_examples(run.stage("examples").directory)
            run.stage("examples").commit({"train": 160})
        return run

    return make


def processes_of(output: Path) -> list[psutil.Process]:
    """Every live process that names this job's spec: launcher, Horovod's go-betweens and workers."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        named = str(output / names.SPEC) in " ".join(process.info["cmdline"] or ())
        if named and process.pid != os.getpid() and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def workers_of(output: Path) -> list[psutil.Process]:
    return [p for p in processes_of(output) if p.cmdline()[1:3] == ["-m", "reshelve.training.worker"]]


def launchers_of(output: Path) -> list[psutil.Process]:
    return [p for p in processes_of(output) if p.cmdline()[1:3] == ["-m", "reshelve.training.horovodrun"]]


def assert_none_left(output: Path, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while processes_of(output):
        assert time.monotonic() < deadline, processes_of(output)
        time.sleep(0.1)


def when_training(output: Path, act: Callable[[], None]) -> threading.Thread:
    """In the background: once a checkpoint is there, act."""

    def wait_and_act() -> None:
        deadline = time.monotonic() + 120
        while not (output / names.CHECKPOINT).is_file() and time.monotonic() < deadline:
            time.sleep(0.01)
        act()

    thread = threading.Thread(target=wait_and_act)
    thread.start()
    return thread


RUN_JOB = (
    "import sys; from reshelve.training.launch import run_job; from reshelve.training.spec import TrainingSpec; "
    "run_job(TrainingSpec.model_validate_json(sys.argv[1]), 1)"
)
SLOWLY = {"training.epochs": 30, "training.checkpoint_seconds": 0.02}


EVERY_OPTION = {
    "training.processes": 2,
    "training.epochs": 12,
    "training.validations": 10,
    "training.patience": 9,
    "training.average": "ema",
    "training.accumulate": 2,
    "training.adversarial": 0.1,
    "training.adapter.kind": "adalora",
    "training.adapter.rank": 2,
}


def test_kill_9_in_the_middle_then_a_retry_gives_the_weights_of_an_undisturbed_night(
    make_run: MakeRun,
) -> None:
    """Two processes, with every option that has a state of its own."""
    undisturbed = make_run("one", **EVERY_OPTION)
    wanted_result = run_stage(undisturbed, "train", train)
    wanted = load_file(undisturbed.stage("train").directory / "model.safetensors")
    assert wanted_result["processes"] == 2 and wanted_result["rank_difference"] == 0.0
    assert wanted_result["validation_loss"] < wanted_result["first_validation_loss"]

    disturbed = make_run("two", **EVERY_OPTION, **{"training.checkpoint_seconds": 0.02})
    output = disturbed.stage("train").directory
    killer = when_training(output, lambda: [worker.kill() for worker in workers_of(output)])
    with pytest.raises(TryAgainError, match="training was interrupted"):
        run_stage(disturbed, "train", train)
    killer.join()
    assert_none_left(output)
    assert disturbed.stage("train").result() is None
    result = run_stage(disturbed, "train", train)
    assert (result["steps"], result["kept"]) == (wanted_result["steps"], wanted_result["kept"])
    assert result["values"] == {} and result["base"]["files"]["model.safetensors"]
    assert result["start"] == {"from": "base", "version": None, "run": None, "reason": "there is no champion"}
    found = load_file(output / "model.safetensors")
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-5, atol=1e-6, msg=name)
    keys = {key.rpartition("/train/")[2] for key, _ in disturbed.store.list(disturbed.stage("train").prefix)}
    assert keys >= {
        "model.safetensors",
        "model.json",
        "tokenizer.json",
        "base.json",
        "curve.json",
        "result.json",
    }
    assert not [key for key in keys if key.startswith(".")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
@pytest.mark.parametrize("whom", ["verb", "launcher"])
def test_no_process_is_left_when_a_night_is_stopped(
    make_run: MakeRun, whom: str, number: signal.Signals
) -> None:
    run = make_run(**{**SLOWLY, "training.epochs": 100})
    output = run.stage("train").directory
    job = training_spec(
        run.ranker,
        identity=run.id,
        base=Path(run.ranker.model.base),
        examples=run.stage("examples").files(),
        output=output,
    )
    verb = subprocess.Popen([sys.executable, "-c", RUN_JOB, job.model_dump_json()], start_new_session=True)
    try:
        when_training(output, lambda: None).join()
        assert workers_of(output)
        if whom == "verb":
            verb.send_signal(number)
        else:
            for launcher in launchers_of(output):
                launcher.send_signal(number)
        assert_none_left(output)
        verb.wait(30)
    finally:
        verb.kill()
        verb.wait()


def test_a_host_that_does_not_know_its_own_name_is_told_so_before_anything_starts(make_run: MakeRun) -> None:
    """Gloo would end with SIGSEGV, at every retry."""
    space = ["unshare", "--user", "--map-root-user", "--uts"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*space, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("this host allows no namespace with another host name (unshare)")
    run = make_run()
    output = run.stage("train").directory
    job = training_spec(
        run.ranker,
        identity=run.id,
        base=Path(run.ranker.model.base),
        examples=run.stage("examples").files(),
        output=output,
    )
    script = "import socket, sys; socket.sethostname('no-such-host.invalid'); " + RUN_JOB
    done = subprocess.run(
        [*space, sys.executable, "-c", script, job.model_dump_json()],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "ConfigurationError: this host's name 'no-such-host.invalid' does not resolve" in done.stderr, (
        done.stderr
    )
    assert "add a line to /etc/hosts: 127.0.0.1 no-such-host.invalid" in done.stderr
    assert not (output / names.SPEC).exists() and "workers started" not in done.stderr


def test_a_workers_own_error_comes_through_with_its_headline(make_run: MakeRun) -> None:
    run = make_run()
    examples = run.stage("examples").files()
    (examples / "validation.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(DataError, match=r"validation\.parquet: the examples cannot be read"):
        run_stage(run, "train", train)


def test_another_base_than_the_examples_had_is_refused(make_run: MakeRun) -> None:
    run = make_run()
    path = run.stage("examples").files() / "base.json"
    document = json.loads(path.read_text())
    document["files"]["tokenizer.json"] = "0" * 64
    path.write_text(json.dumps(document))
    with pytest.raises(ConfigurationError, match=r"tokenizer\.json is not the file"):
        train(run)
