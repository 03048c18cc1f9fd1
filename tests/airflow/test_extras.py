"""The extras: OpenLineage through Airflow's provider to a file, Slack and Teams through Airflow's notifiers to real servers.

In an environment without them each is skipped with its reason; what must hold without them is tested here too.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException

from reshelve.settings import settings
from reshelve_airflow.notifiers import EMAIL, SLACK, TEAMS, WEBHOOK, notifiers, on_failure
from reshelve_airflow.verb import ReshelveOperator
from reshelve_airflow.watch import AlertOperator

LOOK = {
    "headline": "search: bad version {{ x }}",
    "action": "roll back",
    "alert": True,
    "findings": ["{% 9 %} fail"],
}


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def needs(module: str, extra: str) -> pytest.MarkDecorator:
    """Skip where an extra is not installed."""
    why = f"the extra {extra} is not installed: pip install -c constraints.txt -e '.[{extra}]'"
    return pytest.mark.skipif(not _installed(module), reason=why)


NO_SLACK = needs("airflow.providers.slack", "slack")
NO_TEAMS = needs("airflow.providers.apprise", "teams")
NO_LINEAGE = needs("airflow.providers.openlineage", "openlineage")


@pytest.fixture(autouse=True)
def fresh_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test sets in the environment holds for it alone."""
    for name in (WEBHOOK, EMAIL, SLACK, TEAMS):
        monkeypatch.delenv(name, raising=False)
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.fixture
def tool() -> Iterator[Any]:
    """A chat tool: `.url`, `.heard` and the `.status` that it answers."""
    found = SimpleNamespace(heard=[], status=200)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(found.status)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        found.port = server.server_port
        found.url = f"http://127.0.0.1:{found.port}"
        yield found
        server.shutdown()


def _slack(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv(SLACK, "slack_alerts")
    connection = {"conn_type": "slackwebhook", "host": url, "password": "T000/B000/hush-hush"}
    monkeypatch.setenv("AIRFLOW_CONN_SLACK_ALERTS", json.dumps(connection))
    settings.cache_clear()


def _teams(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    monkeypatch.setenv(TEAMS, "teams_alerts")
    config = {"path": f"json://127.0.0.1:{port}/hush-hush", "tag": "alerts"}
    monkeypatch.setenv(
        "AIRFLOW_CONN_TEAMS_ALERTS", json.dumps({"conn_type": "apprise", "extra": {"config": config}})
    )
    settings.cache_clear()


@NO_SLACK
def test_slack_is_told_by_airflows_own_notifier(monkeypatch: pytest.MonkeyPatch, tool: Any) -> None:
    _slack(monkeypatch, tool.url)
    assert AlertOperator(task_id="alert", look=LOOK).execute({}) == ["Slack"]  # type: ignore[arg-type]
    (heard,) = tool.heard
    assert "bad version" in heard["text"] and "roll back" in heard["text"] and "{{" not in heard["text"]
    (failed,) = on_failure()
    assert "{{ ti.task_id }}" in failed.text and "slack_webhook_conn_id" in failed.template_fields


@NO_TEAMS
def test_teams_is_told_by_airflows_own_notifier(monkeypatch: pytest.MonkeyPatch, tool: Any) -> None:
    _teams(monkeypatch, tool.port)
    assert AlertOperator(task_id="alert", look=LOOK).execute({}) == ["Teams"]  # type: ignore[arg-type]
    (heard,) = tool.heard
    assert "bad version" in heard["title"] and "roll back" in heard["message"]
    (failed,) = on_failure()
    assert "{{ ti.task_id }}" in failed.title and "{{ exception }}" in failed.body


@NO_SLACK
def test_a_tool_that_is_away_keeps_no_other_from_being_told_and_shows_no_token(
    monkeypatch: pytest.MonkeyPatch, tool: Any, caplog: pytest.LogCaptureFixture
) -> None:
    _slack(monkeypatch, "http://127.0.0.1:9")
    with pytest.raises(AirflowException, match="Slack") as away:
        AlertOperator(task_id="alert", look=LOOK).execute({})  # type: ignore[arg-type]
    assert "hush-hush" not in str(away.value)
    monkeypatch.setenv(WEBHOOK, tool.url)
    settings.cache_clear()
    assert AlertOperator(task_id="alert", look=LOOK).execute({}) == ["webhook"]  # type: ignore[arg-type]
    assert tool.heard and "hush-hush" not in caplog.text


@pytest.mark.parametrize("variable", [SLACK, TEAMS])
def test_an_extra_that_is_not_installed_is_a_warning_and_stops_no_dag(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, variable: str
) -> None:
    for module in (
        "airflow.providers.slack.notifications.slack_webhook",
        "airflow.providers.apprise.notifications.apprise",
    ):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    monkeypatch.setenv(variable, "some_connection")
    settings.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert notifiers("subject", "text") == {} and on_failure() == []
    extra = variable.rpartition("_")[2].lower()
    assert variable in caplog.text and f".[{extra}]" in caplog.text


@NO_LINEAGE
def test_a_verbs_datasets_and_facets_arrive_by_openlineages_file_transport(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from airflow.providers.openlineage.extractors.manager import ExtractorManager
    from airflow.providers.openlineage.plugins.adapter import OpenLineageAdapter
    from openlineage.client import OpenLineageClient
    from openlineage.client.transport.file import FileConfig, FileTransport

    log = tmp_path / "events.jsonl"
    client = OpenLineageClient(transport=FileTransport(FileConfig(log_file_path=str(log), append=True)))
    adapter = OpenLineageAdapter(client=client)

    def told(task_id: str, verb: str, options: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
        operator = ReshelveOperator(task_id=task_id, verb=verb)
        operator.asked, operator.produced = options, result
        found = ExtractorManager()._get_extractor(operator)
        assert found is not None, "the provider finds the operator's method"
        lineage = found.extract_on_complete(None)
        assert lineage is not None
        adapter.complete_task(
            run_id=str(uuid.uuid4()), job_name=f"retrain_recommend.{task_id}", end_time="2011-08-31T02:00:00Z", task=lineage,
            nominal_start_time=None, nominal_end_time=None, owners=None, tags=None, job_description=None,
        )  # fmt: skip
        event: dict[str, Any] = json.loads(log.read_text().splitlines()[-1])
        return event

    run = "recommend/2011-08-30/1a2b3c4d5e6f"
    asked = {"ranker": "recommend", "partition": "2011-08-30"}
    rule = {"rule": "price_possible", "severity": "quarantine", "message": "7 rows"}
    event = told(
        "validate", "validate", {"source": "retail", "partition": "2011-08-30"},
        {"rows_in": 1000, "rows_good": 993, "verdict": "warn", "rules": [rule]},
    )  # fmt: skip
    (read,), (written,) = event["inputs"], event["outputs"]
    assert (read["namespace"], read["name"]) == (f"s3://{settings().bucket}", "clickstream/retail")
    assert read["inputFacets"]["dataQualityMetrics"]["rowCount"] == 1000
    assert read["inputFacets"]["dataQualityAssertions"]["assertions"][0]["assertion"] == "price_possible"
    assert written["outputFacets"]["outputStatistics"]["rowCount"] == 993

    event = told(
        "publish",
        "publish",
        asked,
        {"run": run, "published": True, "version": 20110830001, "verdict": "promote"},
    )
    (model,) = event["outputs"]
    assert (
        model["name"] == "models/recommend" and model["facets"]["version"]["datasetVersion"] == "20110830001"
    )
    assert {each["name"] for each in event["inputs"]} == {"runs/recommend/package", "runs/recommend/gate"}
    labels = {tag["key"]: tag["value"] for tag in event["run"]["facets"]["tags"]["tags"]}
    assert labels["reshelve.verdict"] == "promote" and labels["reshelve.run"] == run
    assert event["job"]["name"] == "retrain_recommend.publish" and event["eventType"] == "COMPLETE"
