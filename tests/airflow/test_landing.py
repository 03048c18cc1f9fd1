"""Landing as a task: what the verb says becomes done, wait, or never again. Real children on the real store."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, DownstreamTasksSkipped
from tests.airflow.platform_here import DAILY, with_a_daily_one

from reshelve.settings import PROJECT, settings
from reshelve.store.objects import ObjectStore
from reshelve.validation.verdicts import verdict_key
from reshelve_airflow.forms import clickstream_params
from reshelve_airflow.landing import LandSensor, delivery_of
from reshelve_airflow.nights import PartitionOperator
from reshelve_airflow.params import ParamsError
from reshelve_airflow.reports import ValidateOperator

pytestmark = pytest.mark.slow


@pytest.fixture
def raw(store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The source `daily`, delivered for two days of May; the second file has a row of the first day."""
    monkeypatch.setenv(
        "RESHELVE_CLICKSTREAMS_DIR", str(with_a_daily_one(tmp_path / "sources", tmp_path / "raw"))
    )
    monkeypatch.setenv("PYTHONPATH", str(PROJECT / "include"))
    settings.cache_clear()
    return tmp_path / "raw"


def context(first_try: datetime | None = None, **params: Any) -> Any:
    """What Airflow hands a task; `first_try`: when it began to wait."""
    ti = SimpleNamespace(
        xcom_push=lambda **_: None, get_first_reschedule_date=lambda _: first_try, try_number=1, max_tries=2
    )
    return {"ti": ti, "params": {"source": None, "land": False, **params}}


def land(day: str, of: str = DAILY, **more: Any) -> Any:
    """One look of the task of source `of`; `more` are params of the run."""
    return LandSensor(task_id="land", source=of, partition=day).poke(context(**more))


def with_key(key: str, value: int | str) -> None:
    path = settings().clickstreams_dir / f"{DAILY}.yaml"
    path.write_text(f"{path.read_text()}{key}: {value}\n")


def test_a_part_is_done_with_a_warning_and_a_day_that_holds_other_rows_fails(
    store: ObjectStore, raw: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert land("2011-05-01").xcom_value["rows"] == 40
    part = land("2011-05-02")
    assert part.is_done and part.xcom_value["elsewhere"] == {"2011-05-01": 1}
    file = raw / "clicks-2011-05-02.csv"
    file.write_text(file.read_text().replace("v12,", "v13,"))
    with pytest.raises(AirflowFailException, match="2011-05-02 has already landed with other rows"):
        land("2011-05-02")


def test_rows_that_come_late_reopen_the_day_before_and_it_is_judged_again(
    store: ObjectStore, raw: Path
) -> None:
    with_key("neighbour_days", 1)
    assert land("2011-05-01").xcom_value["rows"] == 41, "tomorrow's file holds one of its rows"
    late = raw / "clicks-2011-05-02.csv"
    late.write_text(late.read_text() + "2011-05-01 23:59:58,v98,i2\n")
    assert land("2011-05-02").xcom_value["late_days"] == ["2011-05-01"]
    found = store.get_json(verdict_key(DAILY, date(2011, 5, 1)))
    assert found and found["rows_in"] == 42


def test_files_that_are_not_there_are_waited_for_and_then_named(store: ObjectStore, raw: Path) -> None:
    with pytest.raises(AirflowFailException, match="no file for 2011-05-03 has arrived"):
        land("2011-05-03")
    with_key("wait_minutes", 30)
    assert land("2011-05-03") is False, "the first look"
    now = datetime.now(UTC)
    assert land("2011-05-03", first_try=now - timedelta(minutes=29)) is False
    with pytest.raises(AirflowFailException, match="after 30 minutes"):
        land("2011-05-03", first_try=now - timedelta(minutes=31))


def test_a_day_is_not_landed_before_it_has_ended_where_its_shop_is(store: ObjectStore, raw: Path) -> None:
    now = datetime.now(UTC)
    ahead = (18 - now.hour + 12) % 24 - 12  # hours by which the clocks of a place show six in the evening
    with_key("time_zone", f"Etc/GMT{-ahead:+d}")
    today = (now + timedelta(hours=ahead)).date()
    (raw / f"clicks-{today}.csv").write_text("seen,visit,sku\n")
    assert land(str(today)) is False
    yesterday = today - timedelta(days=1)
    with pytest.raises(AirflowFailException, match=f"no file for {yesterday} has arrived"):
        land(str(yesterday))


def test_other_sources_are_skipped_unless_somebody_asks(store: ObjectStore, raw: Path) -> None:
    assert delivery_of("retail") is None and delivery_of(DAILY) is not None
    with pytest.raises(AirflowSkipException, match=r"has no \{date\}"):
        land("2011-08-23", "retail")
    with pytest.raises(AirflowSkipException, match="asked for retail alone"):
        land("2011-05-01", source="retail")  # of the run
    assert land("2011-08-23", "retail", land=True).xcom_value["partitions"] == 1


def test_the_form_knows_its_sources() -> None:
    form = clickstream_params(["daily", "retail"])
    assert form.read({"source": "daily", "land": True}).land
    with pytest.raises(ParamsError, match="no such source; known: daily, retail"):
        form.read({"source": "dayly"})


@pytest.mark.parametrize(
    ("params", "left"),
    [
        pytest.param({}, ["land_daily", "validate_daily", "validate_retail"], id="all of them"),
        pytest.param(
            {"land": True}, ["land_daily", "land_retail", "validate_daily", "validate_retail"], id="land"
        ),
        pytest.param({"source": "retail"}, ["validate_retail"], id="one that tells no files of a day"),
        pytest.param({"source": DAILY}, ["land_daily", "validate_daily"], id="one that does"),
    ],
)
def test_tasks_without_work_are_skipped_by_the_first(
    raw: Path, params: dict[str, Any], left: list[str]
) -> None:
    form = {"source": None, "land": False, "partition": None}
    with DAG("clickstream", schedule=None, params=form) as dag:
        partition = PartitionOperator(task_id="partition")
        for source in (DAILY, "retail"):
            landed = LandSensor(task_id=f"land_{source}", source=source, partition="2011-05-01")
            validated = ValidateOperator(task_id=f"validate_{source}", source=source, partition="2011-05-01")
            partition >> landed >> validated
            partition >> validated
    run = SimpleNamespace(
        conf=params,
        partition_key="2011-05-01",
        data_interval_start=None,
        data_interval_end=None,
        logical_date=None,
    )
    pushed: dict[str, Any] = {}
    asked = {**context(partition=None, **params), "dag_run": run, "dag": dag}
    asked["ti"].xcom_push = lambda key, value: pushed.update({key: value})
    skipped: set[str] = set()
    try:
        pushed["return_value"] = partition.execute(asked)
    except DownstreamTasksSkipped as skip:
        skipped = set(skip.tasks)
    assert pushed == {"return_value": "2011-05-01"}
    assert sorted(set(dag.task_ids) - {"partition"} - skipped) == left
