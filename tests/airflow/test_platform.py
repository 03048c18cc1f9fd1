"""The DAGs on the four real Airflow processes and PostgreSQL: runs by REST, backfills, verdicts, cancellation."""

from __future__ import annotations

import time
import urllib.error
from datetime import date
from typing import Any

import pytest
from tests.airflow.platform_here import DAILY, AirflowHere

from reshelve.platform.airflow_client import AirflowClient, DagRun
from reshelve.validation.verdicts import PartitionDecision, verdict_key

pytestmark = [pytest.mark.platform, pytest.mark.slow]


def test_backfills_handle_every_day_of_both_dags_and_release_nothing(airflow_here: AirflowHere) -> None:
    airflow_here.backfill("clickstream", "2011-08-26", "2011-08-27")
    days = airflow_here.ended("clickstream", 2)
    assert [(run["partition_key"], run["run_type"]) for run in days] == [
        ("2011-08-26", "backfill"),
        ("2011-08-27", "backfill"),
    ]
    states = {task: state for task, state in airflow_here.tasks(days[0]).items() if not task.endswith(DAILY)}
    assert set(states.values()) == {"success", "skipped"}, "nothing landed: skipped, not failed"

    airflow_here.judge("2011-08-26", PartitionDecision.STOP)
    airflow_here.backfill("retrain_recommend", "2011-08-26", "2011-08-27")
    stopped, missing = airflow_here.ended("retrain_recommend", 2)
    assert (stopped["partition_key"], stopped["state"]) == ("2011-08-26", "failed")
    assert airflow_here.tasks(stopped)["await_verdict"] == "failed"
    client = AirflowClient(
        airflow_here.machine.airflow_url, "admin", airflow_here.machine.secrets.passwords["admin"]
    )
    night = DagRun("retrain_recommend", stopped["dag_run_id"], "failed", "2011-08-26", {})
    codes = {task.id: client.exit_code(task) for task in client.tasks(night)}
    assert codes["await_verdict"] == 65 and codes["examples"] is None
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
    # On a quiet machine two days are over before the second command has started: nothing runs of a paused DAG.
    airflow_here.call("PATCH", "/dags/clickstream", {"is_paused": True})
    try:
        airflow_here.backfill("clickstream", *range_, "--run-backwards", source="retail")
        airflow_here.backfill("clickstream", "2011-08-18", "2011-08-19", refused="only one running backfill")
    finally:
        airflow_here.call("PATCH", "/dags/clickstream", {"is_paused": False})
    first = days()
    assert first["2011-08-21"] < first["2011-08-20"], "the newest day first"
    until_none_is_active()
    airflow_here.backfill("clickstream", *range_)
    until_none_is_active()
    assert days() == first, "what exists is left alone"
    airflow_here.backfill("clickstream", *range_, "--reprocess-behavior", "completed", source="retail")
    deadline = time.monotonic() + 120
    while any((days()[day] or "") <= first[day] for day in range_):
        assert time.monotonic() < deadline, "reprocessing runs every day again"
        time.sleep(1)
    assert len(airflow_here.runs("clickstream")) == before + 4, "in runs of their own"
    until_none_is_active()


def test_a_plan_shows_the_night_and_does_nothing(airflow_here: AirflowHere) -> None:
    airflow_here.judge("2011-08-28", PartitionDecision.PASS)
    before, objects = len(airflow_here.runs("retrain_recommend")), list(airflow_here.store.list(""))
    conf = {"plan": True, "trials": 2, "compression": "none", "window_days": 10}
    asked = airflow_here.trigger("retrain_recommend", partition_key="2011-08-28", conf=conf)
    runs = {run["dag_run_id"]: run for run in airflow_here.ended("retrain_recommend", before + 1)}
    planned = runs[asked["dag_run_id"]]
    tasks = airflow_here.tasks(planned)
    assert (planned["state"], tasks.pop("night"), set(tasks.values())) == ("success", "success", {"skipped"})
    plan = airflow_here.value(planned, "night", "plan")
    before_steps, tonight_steps = plan["changes"]["compression.steps"]
    assert [step["step"] for step in before_steps] == ["int8"] and tonight_steps == []
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
        pytest.param({"tuning_cost": 5}, 400, id="a budget in money without a price"),
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


def test_a_day_is_landed_before_it_is_validated(airflow_here: AirflowHere) -> None:
    before = len(airflow_here.runs("clickstream"))
    asked = {
        day: airflow_here.trigger("clickstream", partition_key=day, conf=conf)["dag_run_id"]
        for day, conf in (
            ("2011-05-02", {"source": DAILY}),  # one of its rows is of the day before: exit code 73
            ("2011-05-03", {"source": DAILY}),  # nothing was delivered
        )
    }
    runs = {run["dag_run_id"]: run for run in airflow_here.ended("clickstream", before + 2)}
    tasks = {day: airflow_here.tasks(runs[run]) for day, run in asked.items()}
    part, missing = ((tasks[day][f"land_{DAILY}"], tasks[day][f"validate_{DAILY}"]) for day in asked)
    assert part == ("success", "success") and missing == ("failed", "upstream_failed")
    assert {tasks[day]["validate_retail"] for day in asked} == {"skipped"}
    landed = airflow_here.value(runs[asked["2011-05-02"]], f"land_{DAILY}", "return_value")
    assert (landed["rows"], landed["elsewhere"]) == (40, {"2011-05-01": 1})
    found = airflow_here.store.get_json(verdict_key(DAILY, date(2011, 5, 2)))
    assert found and found["verdict"] in ("pass", "warn")


def test_no_run_was_made_by_the_schedule(airflow_here: AirflowHere) -> None:
    types = {
        run["run_type"] for dag in ("clickstream", "retrain_recommend") for run in airflow_here.runs(dag)
    }
    assert "scheduled" not in types
