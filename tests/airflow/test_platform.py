"""The DAGs on the four real Airflow processes and PostgreSQL: runs by REST, backfills, verdicts, cancellation."""

from __future__ import annotations

import pytest
from platform_here import AirflowHere

from reshelve.clickstream.verdicts import Decision

pytestmark = [pytest.mark.platform, pytest.mark.slow]


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


def test_no_run_was_made_by_the_schedule(airflow_here: AirflowHere) -> None:
    types = {
        run["run_type"] for dag in ("clickstream", "retrain_recommend") for run in airflow_here.runs(dag)
    }
    assert "scheduled" not in types
