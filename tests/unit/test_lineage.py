"""A stage is done once, by one process, and its result can be fetched anywhere."""

from __future__ import annotations

import shutil
import subprocess
import sys
from datetime import date

import pytest

from reshelve.errors import AlreadyRunningError, ConfigurationError, TryAgainError
from reshelve.lineage import Result, Run, parse_partition, run_stage
from reshelve.rankers import load_ranker
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


def test_the_identity_names_ranker_partition_and_spec(run: Run) -> None:
    other = Run.of(load_ranker("recommend", {"training.epochs": 9}), DAY)
    assert run.id.startswith("recommend/2011-08-30/")
    assert run.id == Run.of(load_ranker("recommend"), DAY).id
    assert run.id != other.id


def test_a_partition_is_a_day() -> None:
    assert parse_partition("2011-08-30") == DAY
    with pytest.raises(ConfigurationError, match="YYYY-MM-DD"):
        parse_partition("30.8.2011")
