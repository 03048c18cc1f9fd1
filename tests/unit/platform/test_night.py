"""Which night runs, when it counts as done, and how it is shown."""

from __future__ import annotations

import io
import json
import os
import time
from datetime import date
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from rich.console import Console
from tests.deployed import put_state

from reshelve.deployments.deployment_log import Pointer
from reshelve.errors import AlreadyRunningError, ConfigurationError, DataError, TryAgainError
from reshelve.lineage.run import Run
from reshelve.pipeline.references import load_ranker
from reshelve.platform import night
from reshelve.platform.airflow_client import AirflowClient, DagRun, Task
from reshelve.platform.progress import Lines, current_losses
from reshelve.platform.supervisor import Supervisor
from reshelve.processes import free_port
from reshelve.settings import settings
from reshelve.store.objects import ObjectStore

FIRST, SECOND = night.SAMPLE_NIGHTS["retail"]
NIGHTS = (FIRST, SECOND)


def published(day: date, verdict: str = "promote", version: int = 0) -> Run:
    run = Run.of(load_ranker("recommend"), day)
    version = version or int(f"{day:%Y%m%d}001")
    run.stage("publish").commit({"published": verdict == "promote", "version": version, "verdict": verdict})
    return run


def point(store: ObjectStore, stable: int, previous: int | None = None) -> None:
    put_state(store, Pointer(ranker="recommend", stable=stable, previous=previous))


@pytest.mark.parametrize(
    ("done", "run", "then"),
    [
        pytest.param((), FIRST, FIRST, id="a clean machine"),
        pytest.param((FIRST,), FIRST, SECOND, id="after the first night"),
        pytest.param((FIRST, SECOND), SECOND, SECOND, id="after both"),
    ],
)
def test_run_shows_what_there_is_and_night_goes_on(done: tuple[date, ...], run: date, then: date) -> None:
    assert night._newest_or_first(NIGHTS, done) == run
    assert night._next(NIGHTS, done) == then


@pytest.mark.parametrize("name", ["recommend", "search", "ads"])
def test_every_committed_sample_has_its_nights(store: ObjectStore, name: str) -> None:
    assert night._sample_night(load_ranker(name), night._newest_or_first) == FIRST


def test_another_source_needs_its_day_named() -> None:
    with pytest.raises(ConfigurationError, match="which night") as raised:
        night._sample_night(load_ranker("relevance"), night._next)
    assert "PARTITION=" in raised.value.detail


@pytest.mark.parametrize(
    ("ranker", "values", "command"),
    [
        pytest.param("recommend", {}, "make night", id="the default"),
        pytest.param("search", {}, "make night RANKER=search", id="another sample"),
        pytest.param(
            "search",
            {"data.source": "shop"},
            "make night RANKER=search PARTITION=2011-08-31",
            id="a source of one's own",
        ),
    ],
)
def test_the_command_of_the_following_night_can_be_typed(
    ranker: str, values: dict[str, Any], command: str
) -> None:
    assert night._command_after(load_ranker(ranker).with_values(values), date(2011, 8, 30)) == command


def test_the_makefiles_ranker_is_the_default() -> None:
    makefile = (Path(night.__file__).parents[3] / "Makefile").read_text()
    assert f"RANKER ?= {night.DEFAULT}\n" in makefile


def test_a_night_is_done_when_its_version_serves(store: ObjectStore) -> None:
    run = Run.of(load_ranker("recommend"), FIRST)
    assert not night._is_done(run)
    published(FIRST)
    assert not night._is_done(run)  # promoted, not yet released
    point(store, stable=20110830001)
    assert night._is_done(run)


def test_a_night_that_was_rolled_back_or_overtaken_is_not_run_again(store: ObjectStore) -> None:
    run = published(FIRST)
    point(store, stable=20110829001, previous=20110830001)
    assert night._is_done(run)
    point(store, stable=20110901001, previous=20110831001)
    assert night._is_done(run)


def test_a_night_that_the_gate_held_is_done(store: ObjectStore) -> None:
    assert night._is_done(published(FIRST, verdict="hold"))


def task(state: str, label: str = "train") -> Task:
    return Task("retrain_recommend", "run", label, -1, state, 1, 3.0)


def test_a_line_per_change_and_none_for_waiting() -> None:
    output = io.StringIO()
    lines = Lines(Console(file=output))
    for states in (("running", "none"), ("running", "scheduled"), ("success", "running")):
        lines.update([task(states[0]), task(states[1], "gate")], {})
    text = output.getvalue().splitlines()
    assert [line.split()[2:4] for line in text] == [
        ["train", "running"],
        ["train", "success"],
        ["gate", "running"],
    ]


def test_the_losses_of_what_trains_now(tmp_path: Path) -> None:
    trial = tmp_path / "recommend" / "2011-08-30" / "aaa" / "tune" / ".trial-7-0" / ".progress.json"
    train = tmp_path / "recommend" / "2011-08-30" / "bbb" / "train" / ".progress.json"
    for path, loss in ((trial, 9.0), (train, 5.25)):
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"step": 3, "steps": 10, "loss": loss}))
    losses = current_losses(tmp_path, "recommend", FIRST)
    assert losses == {"train": "loss 5.25, step 3 of 10", "tune": "trial 7, loss 9, step 3 of 10"}
    os.utime(train, (time.time() - 300,) * 2)
    assert set(current_losses(tmp_path, "recommend", FIRST)) == {"tune"}
    assert current_losses(tmp_path, "recommend", SECOND) == {}


def test_a_loss_is_shown_beside_the_task_that_it_is_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reshelve.platform.progress._TELL_SECONDS", 0.0)
    output = io.StringIO()
    Lines(Console(file=output, width=200)).update(
        [task("running"), task("running", "tune.evaluate_1"), task("running", "compress")],
        {"train": "of train", "tune": "of a trial"},
    )
    said = output.getvalue().splitlines()[3:]
    assert [line.split("running (3s)")[1].strip() for line in said] == ["of train", "of a trial", ""]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (65, DataError),
        (78, ConfigurationError),
        (75, TryAgainError),
        (-9, TryAgainError),
        (None, TryAgainError),
    ],
)
def test_a_night_ends_as_the_task_that_stopped_it(code: int | None, error: type[Exception]) -> None:
    class Airflow(AirflowClient):
        def exit_code(self, task: Task) -> int | None:
            return code

        def log(self, task: Task, lines: int = 25) -> str:
            return "the day is stopped"

    client, run = Airflow("http://127.0.0.1:1", "admin", "x"), Run.of(load_ranker("recommend"), FIRST)
    failed = DagRun("retrain_recommend", "run", "failed", FIRST.isoformat(), {})
    watch = night._Watch(client, Lines(Console(file=io.StringIO())), run, time.monotonic())
    raised = watch._failure(failed, [task("success"), task("failed", "gate")])
    assert type(raised) is error and "the day is stopped" in raised.detail


def test_a_night_goes_on_where_what_died_cannot_be_started_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: Supervisor) -> list[str]:
        raise psycopg2.OperationalError("the database is away")

    monkeypatch.setattr(Supervisor, "look", fails)
    client, run = AirflowClient("http://127.0.0.1:1", "admin", "x"), Run.of(load_ranker("recommend"), FIRST)
    watch = night._Watch(client, Lines(Console(file=io.StringIO())), run, time.monotonic())
    watch._poll(lambda: True, "the run")
    with pytest.raises(TryAgainError, match="the run did not end in time") as raised:
        watch._poll(lambda: False, "the run")
    assert raised.value.detail == "the database is away"


def test_the_second_night_at_once_is_told_of_the_first(store: ObjectStore) -> None:
    settings().home.mkdir(exist_ok=True)
    first, second = (Run.of(load_ranker("recommend"), day) for day in NIGHTS)
    with night._one_night(first), pytest.raises(AlreadyRunningError, match="another night") as raised:
        night._one_night(second).__enter__()
    assert f"the night of {FIRST} of recommend began" in raised.value.detail
    with night._one_night(second):
        pass


@pytest.mark.parametrize(
    ("conf", "taken"),
    [
        pytest.param({}, True, id="one of all sources"),
        pytest.param({"source": "retail"}, True, id="one of this source"),
        pytest.param({"source": "searches"}, False, id="one of another source"),
    ],
)
def test_a_run_of_the_day_is_taken_where_it_reads_the_source(conf: dict[str, str], taken: bool) -> None:
    asked: list[Any] = []

    class Airflow(AirflowClient):
        def _call(self, method: str, path: str, body: Any = None, **missing: Any) -> Any:
            run = {"dag_id": "clickstream", "state": "running", "partition_key": FIRST.isoformat()}
            if body is None:
                return {"dag_runs": [{**run, "dag_run_id": "there", "conf": conf}]}
            asked.append(body)
            return {**run, **body}

    found = Airflow("http://127.0.0.1:1", "admin", "x").trigger("clickstream", FIRST, source="retail")
    assert (found.id == "there") is taken
    assert [body["conf"] for body in asked] == ([] if taken else [{"source": "retail"}])


def test_a_verb_that_takes_too_long_may_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(night, "_VERB_SECONDS", 0.05)
    with pytest.raises(TryAgainError, match="reshelve status did not end within") as raised:
        night._verb("status")
    assert "goes on from there" in raised.value.detail


def test_airflow_away_may_be_tried_again() -> None:
    with pytest.raises(TryAgainError, match="does not answer"):
        AirflowClient(f"http://127.0.0.1:{free_port()}", "admin", "x").runs("clickstream")


@pytest.mark.parametrize(
    ("goes_on", "taken"),
    [
        pytest.param({"source": "retail"}, True, id="about the same source"),
        pytest.param({}, True, id="about every source"),
        pytest.param({"source": "ads"}, False, id="about another"),
    ],
)
def test_a_run_that_goes_on_is_taken_where_it_judges_the_same_source(
    goes_on: dict[str, str], taken: bool
) -> None:
    class Airflow(AirflowClient):
        def _call(self, method: str, path: str, body: Any = None, **missing: Any) -> Any:
            run = {
                "dag_id": "clickstream",
                "dag_run_id": "before",
                "state": "running",
                "partition_key": str(FIRST),
            }
            if method == "GET":
                return {"dag_runs": [run | {"conf": goes_on}]}
            return run | body

    run = Airflow("http://127.0.0.1:1", "admin", "x").trigger("clickstream", FIRST, source="retail")
    assert (run.id == "before") == taken
    assert taken or run.conf == {"source": "retail"}
