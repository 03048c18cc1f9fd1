"""A stage is done once, by one process, and its result can be fetched anywhere."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from reshelve.errors import AlreadyRunningError, ConfigurationError, DataError, TryAgainError
from reshelve.lineage.results import TrainResult, TuneResult
from reshelve.lineage.run import Result, Run, parse_partition, run_stage
from reshelve.pipeline.references import load_ranker
from reshelve.store.objects import ObjectStore

DAY = date(2011, 8, 30)


@pytest.fixture
def run(store: ObjectStore) -> Run:
    return Run.of(load_ranker("recommend"), DAY)


def _write_text(run: Run) -> Result:
    (run.stage("examples").directory / "rows.txt").write_text("rows")
    return {"rows": 1}


def test_a_stage_is_done_once(run: Run) -> None:
    calls: list[str] = []

    def work(run: Run) -> Result:
        calls.append(run.id)
        return _write_text(run)

    first, second = run_stage(run, "examples", work), run_stage(run, "examples", work)
    assert (first["reused"], second["reused"]) == (False, True)
    assert second["rows"] == 1
    assert calls == [run.id]


def test_a_stage_that_fails_is_not_done(run: Run) -> None:
    def broken(run: Run) -> Result:
        raise TryAgainError("the disk went away")

    with pytest.raises(TryAgainError):
        run_stage(run, "examples", broken)
    assert run.stage("examples").result() is None
    assert run_stage(run, "examples", _write_text)["reused"] is False


def test_another_machine_fetches_the_files(run: Run) -> None:
    run_stage(run, "examples", _write_text)
    shutil.rmtree(run.work)
    assert (run.stage("examples").files() / "rows.txt").read_text() == "rows"


def test_files_of_an_earlier_result_are_not_trusted(run: Run) -> None:
    run_stage(run, "examples", _write_text)
    stage = run.stage("examples")
    (stage.directory / "rows.txt").write_text("half")
    (stage.directory / ".complete").unlink()
    assert (stage.files() / "rows.txt").read_text() == "rows"


def test_a_stage_that_is_not_done_says_so(run: Run) -> None:
    with pytest.raises(TryAgainError, match="stage train is not done"):
        run.stage("train").files()


def test_a_result_is_read_in_its_form_and_one_that_does_not_fit_is_named(run: Run) -> None:
    stage = run.stage("tune")
    assert stage.read(TuneResult) is None
    stage.commit({"best": {"training.epochs": 2}, "trials": 3, "of_other_code": True})
    assert (stage.require(TuneResult).best, stage.require(TuneResult).loss) == ({"training.epochs": 2}, None)
    stage.commit({"trials": "many"})
    with pytest.raises(DataError, match=r"stage tune is damaged[\s\S]*tune/result.json: trials: "):
        stage.read(TuneResult)
    with pytest.raises(TryAgainError, match="stage train is not done"):
        run.stage("train").require(TrainResult)


HOLD = """
import fcntl, sys
handle = open(sys.argv[1], "w")
fcntl.flock(handle, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def test_two_processes_never_do_one_stage(run: Run) -> None:
    stage = run.stage("examples")
    with stage.lock():
        pass
    path = run.work / run.id / ".examples.lock"
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(AlreadyRunningError, match="another process"), stage.lock(wait_seconds=0.3):
            pass
    finally:
        other.kill()
        other.communicate()
    with stage.lock(wait_seconds=5):  # the kernel let go with the process
        pass


ONE_OF_TWO = """
import json, sys, time
from datetime import date
from pathlib import Path
from reshelve.lineage.run import Run, run_stage
from reshelve.pipeline.references import load_ranker

def work(run):
    with open(sys.argv[1], "a") as done:
        done.write("once\\n")
    while started.read_text() != "here\\n" * 2:  # the other one is at the door too
        time.sleep(0.02)
    return {"rows": 1}

started = Path(sys.argv[1] + ".started")
with started.open("a") as here:
    here.write("here\\n")
print(json.dumps(run_stage(Run.of(load_ranker("recommend"), date(2011, 8, 30)), "examples", work)))
"""


def test_two_nights_at_once_do_a_stage_once(store: ObjectStore, tmp_path: Path) -> None:
    """A night of Airflow and one from a terminal: the second waits, and takes the first one's result."""
    command = [sys.executable, "-c", ONE_OF_TWO, str(tmp_path / "done")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    found = [json.loads(process.communicate(timeout=60)[0].splitlines()[-1]) for process in both]
    assert sorted(result["reused"] for result in found) == [False, True]
    assert (tmp_path / "done").read_text() == "once\n"


def test_the_identity_names_ranker_partition_and_spec(run: Run) -> None:
    other = Run.of(load_ranker("recommend", {"training.epochs": 9}), DAY)
    assert run.id.startswith("recommend/2011-08-30/")
    assert run.id == Run.of(load_ranker("recommend"), DAY).id
    assert run.id != other.id


def test_a_partition_is_a_day() -> None:
    assert parse_partition("2011-08-30") == DAY
    with pytest.raises(ConfigurationError, match="YYYY-MM-DD"):
        parse_partition("30.8.2011")
