"""The train stage: start the workers under Horovod, watch them, and leave none behind."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reshelve.config.ranker import Ranker
from reshelve.errors import ConfigurationError, DataError, MisfitError, ReshelveError, TryAgainError
from reshelve.files import take_lock
from reshelve.lineage.results import TuneResult
from reshelve.lineage.run import Result, Run
from reshelve.logs import logger
from reshelve.model.base import BaseModel
from reshelve.model.kept_base import recorded_base
from reshelve.processes import guarded, stop_group
from reshelve.training import spec as names
from reshelve.training.installed import need_horovod
from reshelve.training.memory import check_memory
from reshelve.training.spec import TrainingSpec, training_spec
from reshelve.training.warm_start import choose_start, start_files

_ERRORS: dict[int, type[ReshelveError]] = {
    error.exit_code: error for error in (DataError, ConfigurationError, TryAgainError)
}
_LAST_LINES = 15  # of the workers' output, shown when they fail


class JobStoppedError(ReshelveError):
    """A job reached the time it was given, and was stopped."""


def train(run: Run) -> Result:
    """Fine-tune the run's ranker with the values that its tuning found; resumes from the last checkpoint.

    Writes model.safetensors, model.json, tokenizer.json, base.json, curve.json and tensorboard/. Raises TryAgainError
    where a worker was killed (a retry resumes), ConfigurationError where the catalogue is too large for memory, and what the
    workers raise: DataError, ConfigurationError.
    """
    need_horovod()
    ranker, values = tuned(run)
    examples = run.stage("examples").files()
    base = checked_base(ranker, examples, run)
    check_memory(run, ranker, base.path)
    output = run.stage("train").directory
    start = choose_start(run, base)
    job = training_spec(
        ranker,
        identity=run.id,
        base=base.path,
        start=start_files(run, start),
        start_version=start.version,
        examples=examples,
        output=output,
    )
    found = run_job(job, threads=threads_each(ranker.training.processes))
    if job.start is not None:
        shutil.rmtree(job.start)  # the weights of an earlier night are of no more use to this one
    for name in ("tokenizer.json", "base.json"):
        shutil.copyfile(examples / name, output / name)
    return {**found, "values": values, "base": base.record(), "start": start.record()}


def tuned(run: Run) -> tuple[Ranker, dict[str, Any]]:
    """The ranker with the best values of its tuning, and those values; the file's own where nothing was tuned."""
    tuned = run.stage("tune").read(TuneResult)
    best = dict(tuned.best) if tuned else {}
    return (run.ranker.with_values(best) if best else run.ranker), best


def checked_base(ranker: Ranker, examples: Path, run: Run) -> BaseModel:
    """The base model whose tokenizer made the examples. Raises ConfigurationError where it is there no more."""
    record = json.loads((examples / "base.json").read_text())
    try:
        return recorded_base(ranker.model.base, record, run.store)
    except MisfitError as error:
        raise ConfigurationError(
            error.headline, "the base model changed during the run; pin a revision in model.base"
        ) from error


def threads_each(processes: int) -> int:
    """CPU threads for each of `processes` that run side by side on this host."""
    return max(1, len(os.sched_getaffinity(0)) // processes)


def run_job(job: TrainingSpec, threads: int, seconds: float | None = None) -> Result:
    """Run one training job to its end, resuming what is there; a job that is done is not done again.

    Raises TryAgainError where a worker was killed or the launcher failed, JobStoppedError where it was not done after
    `seconds`: by then its processes are gone. Raises ConfigurationError where Horovod is not installed, or this host does
    not know its own name.
    """
    need_horovod()
    job.output.mkdir(parents=True, exist_ok=True)
    _wait_for_earlier_workers(job.output)
    found = _result(job)
    if found is not None:
        return found
    check_names()
    for name in (names.RESULT, names.ERROR, names.PROGRESS):
        (job.output / name).unlink(missing_ok=True)
    spec_path = job.output / names.SPEC
    spec_path.write_text(job.model_dump_json(indent=1))
    last_lines: deque[str] = deque(maxlen=_LAST_LINES)
    with _launched(job, spec_path, threads) as launcher, _stopped_after(seconds, launcher.pid) as late:
        assert launcher.stdout is not None
        for line in launcher.stdout:  # ends when the launcher and all that it started have closed it
            text = _without_prefix(line.decode(errors="replace"))
            last_lines.append(text)
            sys.stderr.write(text)
        code = launcher.wait()
    found = _result(job)
    if found is None and late.is_set():
        raise JobStoppedError(f"{job.identity}: stopped after {seconds:.0f} seconds")
    if found is None:
        raise _failure(job, code, last_lines)
    return found


def check_names() -> None:
    """Raises ConfigurationError where a name that workers are reached by does not resolve: Gloo would end with SIGSEGV."""
    for name in (socket.gethostname(), "localhost"):
        try:
            socket.getaddrinfo(name, None)
        except (OSError, UnicodeError) as error:  # UnicodeError: a label of more than 63 characters
            raise ConfigurationError(
                f"this host's name {name!r} does not resolve ({error}), and Horovod's workers find each other by it",
                f"add a line to /etc/hosts: 127.0.0.1 {name}",
            ) from error


@contextmanager
def _stopped_after(seconds: float | None, group: int) -> Iterator[threading.Event]:
    """Stop the process group after `seconds`, unless this ends before; the event says that it was stopped."""
    late = threading.Event()

    def stop() -> None:
        late.set()
        stop_group(group)

    timer = threading.Timer(seconds, stop) if seconds is not None else None
    if timer:
        timer.start()
    try:
        yield late
    finally:
        if timer:
            timer.cancel()


def _result(job: TrainingSpec) -> Result | None:
    path = job.output / names.RESULT
    if not path.is_file() or (job.save and not (job.output / "model.json").is_file()):
        return None
    found = dict(json.loads(path.read_text()))
    return found if found.pop("digest") == job.digest() else None


def _failure(job: TrainingSpec, code: int, last_lines: deque[str]) -> ReshelveError:
    path = job.output / names.ERROR
    if path.is_file():
        told = json.loads(path.read_text())
        return _ERRORS.get(told["exit_code"], TryAgainError)(told["headline"], told["detail"])
    return TryAgainError(
        f"{job.identity}: training was interrupted (a worker was killed or crashed; the launcher "
        f"exited with {code})",
        "a retry resumes from the last checkpoint; the workers' last lines:\n" + "".join(last_lines),
    )


@contextmanager
def _launched(job: TrainingSpec, spec_path: Path, threads: int) -> Iterator[subprocess.Popen[bytes]]:
    """The launcher, in a process group of its own; it and all its workers are gone when this ends, however it ends."""
    worker = [sys.executable, "-m", "reshelve.training.worker", "--spec", str(spec_path)]
    launcher = [sys.executable, "-m", "reshelve.training.horovodrun", "--gloo", "--network-interfaces", "lo"]
    launched = subprocess.Popen(
        guarded([*launcher, "-np", str(job.training.processes), *worker]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,  # stdout belongs to the verb's result
        start_new_session=True,
        env={
            **os.environ,
            "RESHELVE_DIE_WITH_PARENT": "1",
            "OMP_NUM_THREADS": str(threads),
            "OMP_WAIT_POLICY": "PASSIVE",  # threads that wait by spinning starve a small host's other services
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",  # the base is resolved: workers read files, never the network
        },
    )
    logger(stage="train").info("workers started", processes=job.training.processes, threads=threads)
    try:
        yield launched
    finally:
        stop_group(launched.pid)
        launched.wait()
        if launched.stdout is not None:
            launched.stdout.close()
        _wait_for_earlier_workers(job.output)


def _wait_for_earlier_workers(output: Path, seconds: float = 20) -> None:
    """Return once no worker of an earlier attempt lives: two would write one checkpoint.

    Raises TryAgainError where one does not go; workers leave within a second of their launcher.
    """
    with (output / names.LOCK).open("w") as alive:
        if not take_lock(alive, seconds):
            raise TryAgainError(f"{output}: a worker of an earlier attempt is still running")


def _without_prefix(line: str) -> str:
    """A worker's line without Horovod's `[rank]<stderr>:`; other ranks than 0 keep their number."""
    for stream in ("stderr", "stdout"):
        line = line.removeprefix(f"[0]<{stream}>:")
    return line
