"""A night in MLflow. With RESHELVE_MLFLOW (the `mlflow` program of an environment of its own) against the real server."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from reshelve.errors import ConfigurationError, TryAgainError
from reshelve.lineage.run import Run
from reshelve.processes import guarded, stop_group
from reshelve.reporting.night import Night
from reshelve.settings import settings
from reshelve.tracking.night import curve, figures, metric_name, params, tags, track
from reshelve.tracking.server import Tracking

MLFLOW = "RESHELVE_MLFLOW"
SECRET = "hush-hush"
OLD_FIRST = ["old", "fresh", "spare"]


@pytest.fixture
def name_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """`name_server(uri)`: nights go there."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def use(uri: str) -> None:
        monkeypatch.setenv("RESHELVE_MLFLOW_TRACKING_URI", uri)
        settings.cache_clear()

    yield use
    settings.cache_clear()


def test_nothing_is_sent_by_default(make_night, name_server) -> None:
    name_server("")
    assert settings().tracking_uri == ""
    with pytest.raises(ConfigurationError, match="RESHELVE_MLFLOW_TRACKING_URI is not set"):
        track(make_night())


def test_mlflows_own_variable_is_enough_and_ours_goes_before_it(monkeypatch, name_server) -> None:
    name_server("")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://theirs:5000")
    assert settings().tracking_uri == "http://theirs:5000"
    name_server("http://ours:5000")
    assert settings().tracking_uri == "http://ours:5000"


@pytest.mark.parametrize(
    "uri", ["file:///tmp/mlruns", "sqlite:///mlflow.db", "databricks", "mlruns", f"ftp://ana:{SECRET}@h/"]
)
def test_what_is_no_address_is_refused_without_being_shown(uri: str) -> None:
    with pytest.raises(ConfigurationError, match="expected the http") as refused, Tracking.open(uri):
        pass
    assert not uri.partition(":")[2] or uri not in str(refused.value)
    assert SECRET not in str(refused.value)


class Refusing(BaseHTTPRequestHandler):
    """A server that answers everything with one status."""

    status = 500

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (500, TryAgainError),
        (503, TryAgainError),
        (429, TryAgainError),
        (401, ConfigurationError),
        (404, ConfigurationError),
    ],
)
def test_a_server_that_fails_is_an_error_without_its_password(status: int, error: type[Exception]) -> None:
    handler = type("Handler", (Refusing,), {"status": status})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        with (
            pytest.raises(error, match=f"MLflow answered {status}") as told,
            Tracking.open(f"http://ana:{SECRET}@127.0.0.1:{server.server_port}/") as tracking,
        ):
            tracking.experiment("reshelve/shelf")
        server.shutdown()
    assert SECRET not in str(told.value)


def test_a_server_that_is_away_is_an_error_without_its_password() -> None:
    with (
        pytest.raises(TryAgainError, match="cannot be reached") as told,
        Tracking.open(f"http://ana:{SECRET}@127.0.0.1:9/") as away,
    ):
        away.experiment("reshelve/shelf")
    assert SECRET not in str(told.value)


@pytest.mark.parametrize(("user", "password"), [("ana", SECRET), ("ana@shop.test", "p@ss:w/ö%41")])
def test_the_password_of_an_address_is_sent_as_a_log_in(user: str, password: str) -> None:
    heard: list[str] = []
    there = f"{quote(user, safe='')}:{quote(password, safe='')}"

    class Handler(Refusing):
        def do_GET(self) -> None:
            heard.append(f"{self.path} {self.headers['Authorization']}")
            super().do_GET()

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        with (
            pytest.raises(TryAgainError),
            Tracking.open(f"http://{there}@127.0.0.1:{server.server_port}/mlflow/") as tracking,
        ):
            tracking.experiment("shelf")
        server.shutdown()
    login = b64encode(f"{user}:{password}".encode()).decode()
    assert heard == [f"/mlflow/api/2.0/mlflow/experiments/get-by-name?experiment_name=shelf Basic {login}"]


def test_a_night_is_described_in_mlflows_words(make_night) -> None:
    night = Night.read(make_night(champion=OLD_FIRST))
    found = params(night)
    assert found["data.source"] == "shop" and found["gates.metric"] == "recall@1"
    assert found["training.batch_size"] == "64", "the value that the training had, not the file's"
    measured = {name: value for name, value, _, _ in figures(night, 1)}
    assert measured["gate.challenger.value"] == pytest.approx(40 / 70)
    assert measured["package.latency_ms.8"] == 9.5 and measured["seconds.train"] == 12.3
    assert "gate.champion.version" not in measured
    assert all(name == metric_name(name) for name in measured)
    points = [(name, value, step) for name, value, step, _ in curve(night, 1)]
    assert ("curve.validation_recall_at_20", 0.4, 100) in points
    assert tags(night)["reshelve.verdict"] == night.verdict


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The real tracking server's address."""
    program = os.environ.get(MLFLOW, "")
    if not Path(program).is_file():
        pytest.skip(
            f"{MLFLOW} names no `mlflow` program: make one with `python3 -m venv D && D/bin/pip install mlflow`"
        )
    home = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [program, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
               "--backend-store-uri", f"sqlite:///{home}/db.sqlite", "--artifacts-destination", str(home / "artifacts")]  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    with (home / "log").open("w") as log:
        process = subprocess.Popen(guarded(command), stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 600
        while not _answers(address):
            assert process.poll() is None and time.monotonic() < deadline, (home / "log").read_text()[-2000:]
            time.sleep(0.2)
        yield address
    finally:
        stop_group(process.pid)
        process.wait(20)


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_night_is_in_the_real_mlflow_once_and_whole(make_night, name_server, server: str) -> None:
    def ask(method: str, path: str, **asked: Any) -> dict[str, Any]:
        sent = {"params": asked} if method == "GET" else {"json": asked}
        return httpx.request(method, f"{server}/api/2.0/mlflow/{path}", timeout=30, **sent).json()

    run: Run = make_night("next_item", champion=OLD_FIRST)
    run.store.put(f"{run.prefix}/report/report.html", b"<title>a report</title>")
    published = {"published": True, "version": 20110830001, "verdict": "promote", "uri": "s3://b/models/x"}
    run.stage("publish").commit(published)
    name_server(server)
    first = track(run)
    assert first["tracked"] and first["trials"] == 4 and first["report"] == "sent"
    again = track(run)
    assert again["mlflow_run"] == first["mlflow_run"] and again["model_version"] == first["model_version"]

    experiment = ask("GET", "experiments/get-by-name", experiment_name="reshelve/shelf")["experiment"]
    runs = ask("POST", "runs/search", experiment_ids=[experiment["experiment_id"]], max_results=50)["runs"]
    assert len(runs) == 5, "one night and its four trials, sent twice"
    (mine,) = [each for each in runs if each["info"]["run_id"] == first["mlflow_run"]]
    assert mine["info"]["status"] == "FINISHED"
    stored = {param["key"]: param["value"] for param in mine["data"]["params"]}
    assert stored["training.batch_size"] == "64" and len(stored) > 80
    measured = {metric["key"]: metric["value"] for metric in mine["data"]["metrics"]}
    assert measured["gate.challenger.value"] == pytest.approx(40 / 70)
    history = ask("GET", "metrics/get-history", run_id=first["mlflow_run"], metric_key="curve.loss")[
        "metrics"
    ]
    assert [point["step"] for point in history] == [1, 50, 100]
    failed = [each for each in runs if each["info"]["status"] == "FAILED"]
    assert [
        tag["value"] for each in failed for tag in each["data"]["tags"] if tag["key"] == "reshelve.trial"
    ] == ["2"]

    path = mine["info"]["artifact_uri"].removeprefix("mlflow-artifacts:/")
    body = httpx.get(
        f"{server}/api/2.0/mlflow-artifacts/artifacts/{path.strip('/')}/report.html", timeout=30
    ).content
    assert body == b"<title>a report</title>"

    version = ask("GET", "model-versions/get", name="reshelve-shelf", version=first["model_version"])[
        "model_version"
    ]
    assert version["source"] == "s3://b/models/x" and version["run_id"] == first["mlflow_run"]
    assert {"key": "reshelve.version", "value": "20110830001"} in version["tags"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_night_that_ended_early_is_there_as_failed_and_goes_on(
    make_night, name_server, server: str
) -> None:
    run = make_night("pair", without=("gate", "publish"))
    name_server(server)
    found = track(run)
    asked = {"run_id": found["mlflow_run"]}
    told = httpx.get(f"{server}/api/2.0/mlflow/runs/get", params=asked, timeout=30).json()["run"]
    assert (
        told["info"]["status"] == "FAILED"
        and found["model_version"] is None
        and found["report"] == "there is none"
    )
    run.stage("publish").commit(
        {"published": True, "version": 20110830002, "verdict": "hold", "uri": "s3://b/models/y"}
    )
    later = track(run)
    assert later["mlflow_run"] == found["mlflow_run"] and later["model_version"]
    told = httpx.get(f"{server}/api/2.0/mlflow/runs/get", params=asked, timeout=30).json()["run"]
    assert told["info"]["status"] == "FINISHED"
