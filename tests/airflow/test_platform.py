"""The DAGs on the four real Airflow processes and PostgreSQL: runs by REST, backfills, verdicts, cancellation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from reshelve.clickstream.events import landed_prefix
from reshelve.clickstream.verdicts import Decision, Verdict, verdict_key
from reshelve.platform import airflow, postgres, seaweedfs
from reshelve.platform.configuration import Machine, Ports
from reshelve.processes import free_port, start, stop_group
from reshelve.store.objects import ObjectStore

pytestmark = [pytest.mark.platform, pytest.mark.slow]


class AirflowHere:
    """Airflow's processes of this test session, its REST API, its command, and the bucket beside them."""

    def __init__(self, machine: Machine, environment: dict[str, str], store: ObjectStore) -> None:
        self.machine = machine
        self.environment = environment
        self.store = store
        self._token = ""

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        if not self._token:
            login = {"username": "admin", "password": self.machine.secrets.passwords["admin"]}
            self._token = self._send("POST", "/auth/token", login)["access_token"]
        return self._send(method, f"/api/v2{path}", body)

    def runs(self, dag: str) -> list[dict[str, Any]]:
        return list(self.call("GET", f"/dags/{dag}/dagRuns?order_by=partition_date&limit=50")["dag_runs"])

    def tasks(self, run: dict[str, Any]) -> dict[str, str]:
        path = f"/dags/{run['dag_id']}/dagRuns/{urllib.parse.quote(run['dag_run_id'], safe='')}/taskInstances"
        return {task["task_id"]: task["state"] for task in self.call("GET", path)["task_instances"]}

    def trigger(self, dag: str, **body: Any) -> dict[str, Any]:
        return dict(self.call("POST", f"/dags/{dag}/dagRuns", {"logical_date": None, **body}))

    def ended(self, dag: str, count: int) -> list[dict[str, Any]]:
        """The runs of a DAG, once `count` of them have ended."""
        deadline = time.monotonic() + 400
        while time.monotonic() < deadline:
            runs = self.runs(dag)
            if len([run for run in runs if run["state"] in ("success", "failed")]) >= count:
                return runs
            time.sleep(1)
        raise AssertionError(f"{dag}: {self.runs(dag)}")

    def value(self, run: dict[str, Any], task: str, key: str) -> Any:
        """What a task handed on."""
        path = f"/dags/{run['dag_id']}/dagRuns/{urllib.parse.quote(run['dag_run_id'], safe='')}"
        found = self.call("GET", f"{path}/taskInstances/{task}/xcomEntries/{key}?deserialize=true")["value"]
        return json.loads(found) if isinstance(found, str) else found

    def backfill(self, dag: str, first: str, last: str, *more: str, refused: str = "") -> None:
        """Start one; with `refused` it must not start, and say so."""
        command = [
            "backfill",
            "create",
            "--dag-id",
            dag,
            "--from-date",
            first,
            "--to-date",
            last,
            "--max-active-runs",
            "1",
            *more,
        ]
        environment = {**os.environ, **self.environment}
        done = subprocess.run(
            [sys.executable, "-m", "airflow", *command],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if refused:
            assert done.returncode != 0 and refused in done.stdout + done.stderr, done.stderr
        else:
            assert done.returncode == 0, done.stderr

    def judge(self, day: str, decision: Decision) -> None:
        """A landed day of `retail` with its verdict."""
        partition = date.fromisoformat(day)
        self.store.put(landed_prefix("retail", partition) + "part-0.parquet", b"")
        verdict = Verdict(
            verdict=decision, headline=f"retail {day}: {decision}", source="retail", partition=partition
        )
        self.store.put_json(verdict_key("retail", partition), verdict.result())

    def _send(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._token}"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.machine.airflow_url + path, data=data, headers=headers, method=method
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)


@pytest.fixture(scope="module")
def airflow_here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirflowHere]:
    """PostgreSQL, SeaweedFS and Airflow's processes on free ports; the schedule's first partition is far ahead."""
    here = Machine(
        tmp_path_factory.mktemp("platform"), Ports(**{name: free_port() for name in Ports.model_fields})
    )
    environment = {**here.environment(), "RESHELVE_START_DATE": "2199-01-01", "RESHELVE_BUCKET": "reshelve"}
    ports, secrets = here.ports, here.secrets
    started = []
    with pytest.MonkeyPatch.context() as patch:
        for key in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
            patch.setenv(key, environment[key])
        try:
            started.append(
                postgres.start_postgres(
                    here.postgres, ports.postgres_port, secrets.postgres_password, here.logs / "pg"
                )
            )
            started.append(seaweedfs.start_seaweedfs(here.store, ports.s3_port, here.logs / "s3"))
            store = ObjectStore("reshelve")
            store.create_bucket()
            postgres.create_database(ports.postgres_port, secrets.postgres_password)
            airflow.prepare(here, environment)
            airflow.apply_settings(here, environment)
            for name in airflow.PROCESSES:
                started.append(
                    start(airflow.process_command(name), here.logs / name, env=environment, cwd=Path.cwd())
                )
            platform = AirflowHere(here, environment, store)
            wait_for_dags(platform)
            yield platform
        finally:
            for process in reversed(started):
                stop_group(process.pid)


def wait_for_dags(platform: AirflowHere) -> None:
    """Wait until the API answers and knows the DAGs; then let them run."""
    wanted = {"clickstream", "retrain_recommend"}
    deadline = time.monotonic() + 180
    while True:
        try:
            if wanted <= {dag["dag_id"] for dag in platform.call("GET", "/dags")["dags"]}:
                break
        except OSError:  # not listening yet
            assert time.monotonic() < deadline, "Airflow's API did not answer"
        assert time.monotonic() < deadline, platform.call("GET", "/importErrors")
        time.sleep(1)
    for dag in wanted:
        platform.call("PATCH", f"/dags/{dag}", {"is_paused": False})


def test_backfills_handle_every_day_of_both_dags_and_release_nothing(airflow_here: AirflowHere) -> None:
    airflow_here.backfill("clickstream", "2011-08-26", "2011-08-27")
    days = airflow_here.ended("clickstream", 2)
    assert [(run["partition_key"], run["run_type"]) for run in days] == [
        ("2011-08-26", "backfill"),
        ("2011-08-27", "backfill"),
    ]
    assert set(airflow_here.tasks(days[0]).values()) == {"success", "skipped"}, (
        "nothing landed: skipped, not failed"
    )

    airflow_here.judge("2011-08-26", Decision.STOP)
    airflow_here.backfill("retrain_recommend", "2011-08-26", "2011-08-27")
    stopped, missing = airflow_here.ended("retrain_recommend", 2)
    assert (stopped["partition_key"], stopped["state"]) == ("2011-08-26", "failed")
    assert airflow_here.tasks(stopped)["await_verdict"] == "failed"
    assert airflow_here.tasks(stopped)["examples"] == "upstream_failed", "nothing runs on a stopped day"
    assert (missing["partition_key"], missing["state"]) == ("2011-08-27", "success")
    after = airflow_here.tasks(missing)
    assert {state for task, state in after.items() if task != "night"} == {"skipped"}
    assert airflow_here.runs("release_recommend") == []


def test_a_run_by_rest_before_the_start_date_has_its_tasks_and_refuses_what_it_does_not_know(
    airflow_here: AirflowHere,
) -> None:
    before = len(airflow_here.runs("retrain_recommend"))
    asked = airflow_here.trigger("retrain_recommend", partition_key="2011-08-30", conf={"epoch": 2})
    dated = airflow_here.trigger("retrain_recommend", logical_date="2011-08-29T03:00:00Z")
    by_id = {run["dag_run_id"]: run for run in airflow_here.ended("retrain_recommend", before + 2)}
    refused = by_id[asked["dag_run_id"]]
    assert (refused["state"], airflow_here.tasks(refused)["night"]) == ("failed", "failed")
    skipped = airflow_here.tasks(by_id[dated["dag_run_id"]])
    assert (skipped["night"], skipped["await_verdict"]) == ("success", "skipped"), (
        "the day before: nothing landed"
    )


def test_a_backfill_goes_backwards_and_runs_days_again_only_when_asked(airflow_here: AirflowHere) -> None:
    def days() -> dict[str, str]:
        """When each day's run last started."""
        runs = airflow_here.ended("clickstream", before + 2)
        return {run["partition_key"]: run["start_date"] for run in runs if run["partition_key"] in range_}

    def until_none_is_active() -> None:
        path = "/backfills?dag_id=clickstream"
        deadline = time.monotonic() + 120
        while any(each["completed_at"] is None for each in airflow_here.call("GET", path)["backfills"]):
            assert time.monotonic() < deadline
            time.sleep(1)

    range_ = ("2011-08-20", "2011-08-21")
    before = len(airflow_here.runs("clickstream"))
    until_none_is_active()
    airflow_here.backfill("clickstream", *range_, "--run-backwards")
    airflow_here.backfill("clickstream", "2011-08-18", "2011-08-19", refused="only one running backfill")
    first = days()
    assert first["2011-08-21"] < first["2011-08-20"], "the newest day first"
    until_none_is_active()
    airflow_here.backfill("clickstream", *range_)
    until_none_is_active()
    assert days() == first, "what exists is left alone"
    airflow_here.backfill("clickstream", *range_, "--reprocess-behavior", "completed")
    deadline = time.monotonic() + 120
    while any((days()[day] or "") <= first[day] for day in range_):
        assert time.monotonic() < deadline, "reprocessing runs every day again"
        time.sleep(1)
    assert len(airflow_here.runs("clickstream")) == before + 4, "in runs of their own"
    until_none_is_active()


def test_a_plan_shows_the_night_and_does_nothing(airflow_here: AirflowHere) -> None:
    airflow_here.judge("2011-08-28", Decision.PASS)
    before, objects = len(airflow_here.runs("retrain_recommend")), list(airflow_here.store.list(""))
    conf = {"plan": True, "trials": 2, "compression": "none", "window_days": 10}
    asked = airflow_here.trigger("retrain_recommend", partition_key="2011-08-28", conf=conf)
    runs = {run["dag_run_id"]: run for run in airflow_here.ended("retrain_recommend", before + 1)}
    planned = runs[asked["dag_run_id"]]
    tasks = airflow_here.tasks(planned)
    assert (planned["state"], tasks.pop("night"), set(tasks.values())) == ("success", "success", {"skipped"})
    plan = airflow_here.value(planned, "night", "plan")
    assert plan["changes"]["compression.steps"] == [["int8"], []]
    assert plan["data"]["first"] == "2011-08-19" and plan["data"]["verdict"] == "pass"
    assert [stage["reused"] for stage in plan["stages"]] == [False] * 7
    assert list(airflow_here.store.list("")) == objects, "nothing is written"


@pytest.mark.parametrize(
    ("conf", "code"),
    [
        pytest.param({"epochs": 0}, 400, id="below its range"),
        pytest.param({"compression": "zip"}, 400, id="not one of the choices"),
        pytest.param({"window_days": 2}, 400, id="fewer days than the ranker holds out"),
        pytest.param({"trials": "many"}, 400, id="no number"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_before_there_is_a_run(
    airflow_here: AirflowHere, conf: dict[str, Any], code: int
) -> None:
    before = len(airflow_here.runs("retrain_recommend"))
    with pytest.raises(urllib.error.HTTPError) as refused:
        airflow_here.trigger("retrain_recommend", partition_key="2011-08-30", conf=conf)
    assert refused.value.code == code and next(iter(conf)) in refused.value.read().decode()
    assert len(airflow_here.runs("retrain_recommend")) == before


def test_a_budget_in_money_needs_a_price(airflow_here: AirflowHere) -> None:
    before = len(airflow_here.runs("retrain_recommend"))
    asked = airflow_here.trigger("retrain_recommend", partition_key="2011-08-30", conf={"search_cost": 5})
    runs = {run["dag_run_id"]: run for run in airflow_here.ended("retrain_recommend", before + 1)}
    refused = runs[asked["dag_run_id"]]
    assert (refused["state"], airflow_here.tasks(refused)["night"]) == ("failed", "failed")


def test_no_run_was_made_by_the_schedule(airflow_here: AirflowHere) -> None:
    types = {
        run["run_type"] for dag in ("clickstream", "retrain_recommend") for run in airflow_here.runs(dag)
    }
    assert "scheduled" not in types
