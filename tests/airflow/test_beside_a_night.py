"""What is made beside a night, its report and its run in MLflow: linked by whole addresses, and never a reason to fail."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.exceptions import AirflowException, AirflowSkipException, AirflowTaskTimeout

from reshelve.settings import settings
from reshelve_airflow.child import Child, Outcome
from reshelve_airflow.reports import ReportOperator, TrackOperator, ValidationLink

MADE = {"made": True, "address": "reshelve/report/recommend/20110830001"}


def ending(kind: type, code: int, result: dict[str, Any] | None = None) -> Any:
    """An operator of a kind whose verb is a real process that ends with `code`."""

    class Ending(kind):  # type: ignore[misc]
        log = logging.getLogger("beside")  # Airflow's own is none that can be listened to

        def run_verb(self, verb: str, options: Mapping[str, Any]) -> Outcome:
            text = f"import sys; print({json.dumps(json.dumps(result))}); print('reshelve: it is away', file=sys.stderr); sys.exit({code})"
            return Child([sys.executable, "-S", "-c", text]).run(self.log.info)

    return Ending(task_id="beside")


def context(try_number: int = 3) -> Any:
    return {
        "ti": SimpleNamespace(try_number=try_number, max_tries=2, xcom_push=lambda key, value: None),
        "dag": SimpleNamespace(params={}), "dag_run": SimpleNamespace(conf={}), "params": {},
    }  # fmt: skip


def test_a_verb_that_takes_too_long_fails_no_night() -> None:
    class Slow(TrackOperator):
        def run_verb(self, verb: str, options: Mapping[str, Any]) -> Outcome:
            raise AirflowTaskTimeout("took too long")

    with pytest.raises(AirflowTaskTimeout):
        Slow(task_id="track").execute(context(try_number=1))
    with pytest.raises(AirflowSkipException, match="no track: took too long"):
        Slow(task_id="track").execute(context())


@pytest.mark.parametrize(
    ("base", "address"),
    [
        ("https://shop.example.org", "https://shop.example.org/reshelve/report/recommend/20110830001"),
        ("https://shop.example.org/airflow", "https://shop.example.org/airflow/reshelve/report/recommend/20110830001"),
        ("https://shop.example.org/airflow/", "https://shop.example.org/airflow/reshelve/report/recommend/20110830001"),
        ("", "http://localhost:8080/reshelve/report/recommend/20110830001"),
    ],
)  # fmt: skip
def test_the_log_ends_with_the_reports_whole_address(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, base: str, address: str
) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base)
    report = ending(ReportOperator, 0, MADE)
    with caplog.at_level(logging.INFO):
        assert report.execute(context())["address"] == MADE["address"]
    assert caplog.messages[-1] == f"Report: {address}"
    day = SimpleNamespace(options={"source": "retail", "partition": "2011-08-30"})
    link = ValidationLink().get_link(day, ti_key=None)  # type: ignore[arg-type]
    assert link == address.replace("report/recommend/20110830001", "validation/retail/2011-08-30/report.html")


@pytest.mark.parametrize("kind", [ReportOperator, TrackOperator])
@pytest.mark.parametrize("code", [65, 75, 78, 1])
def test_whatever_fails_beside_a_night_is_skipped_with_its_reason(kind: type, code: int) -> None:
    with pytest.raises(AirflowSkipException, match="it is away"):
        ending(kind, code).execute(context())


@pytest.mark.parametrize("kind", [ReportOperator, TrackOperator])
def test_what_may_pass_is_tried_again_first(kind: type) -> None:
    with pytest.raises(AirflowException, match="it is away") as tried:
        ending(kind, 75).execute(context(try_number=1))
    assert not isinstance(tried.value, AirflowSkipException)


@pytest.fixture
def fresh_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Settings are read anew, before and after."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    settings.cache_clear()
    yield
    monkeypatch.undo()
    settings.cache_clear()


@pytest.mark.slow
def test_a_night_is_tracked_only_where_a_server_is_named_and_nothing_waits_for_it(
    monkeypatch: pytest.MonkeyPatch, fresh_settings: None, project: Path
) -> None:
    def night() -> Any:
        found = DagBag(str(project / "dags" / "retrain.py"))
        assert not found.import_errors
        return found.dags["retrain_recommend"]

    assert "track" not in night().task_ids
    monkeypatch.setenv("RESHELVE_MLFLOW_TRACKING_URI", "http://mlflow.example.org")
    settings.cache_clear()
    track = night().get_task("track")
    assert track.upstream_task_ids == {"examples", "publish", "report"} and not track.downstream_task_ids
    assert track.trigger_rule == "all_done_min_one_success"
