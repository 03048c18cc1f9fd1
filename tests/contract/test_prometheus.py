"""The rules and the board of include/compose, read by a real Prometheus that asks the real exporter and a model server."""

from __future__ import annotations

import json
import shutil
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from reshelve.client.client import RankingClient
from reshelve.modelserver.local_server import running_model_server
from reshelve.monitoring import observations
from reshelve.monitoring.observations import (
    Action,
    AgentSeen,
    Condition,
    Finding,
    Observation,
    VersionRole,
    VersionTraffic,
    WatchDecision,
)
from reshelve.processes import free_port, port_is_open, start, stop_group, wait_until
from reshelve.settings import PROJECT
from reshelve.store.objects import ObjectStore

pytestmark = pytest.mark.slow

COMPOSE = PROJECT / "include" / "compose"
BOARD = json.loads((COMPOSE / "grafana" / "dashboards" / "reshelve.json").read_text())
SECONDS = 60


def keep(store: ObjectStore, minutes: int) -> None:
    """A look of so many minutes ago, of a version that fails often on busy servers, and an agent that is silent."""
    bad = Condition.BAD_VERSION
    traffic = VersionTraffic(
        version=7, role=VersionRole.STABLE, requests=100, errors=20, rejected=10, refusals=30, p50_ms=4, p95_ms=9, p99_ms=20, clicks=5, clickable=50
    )  # fmt: skip
    look = Observation(
        ranker="recommend",
        at=datetime.now(UTC) - timedelta(minutes=minutes),
        versions=(traffic,),
        agents=(AgentSeen(agent="a", live=False, age_seconds=300, memory_bytes=1024),),
        measured={"shift_of_scores": 0.1},
        findings=(Finding(condition=bad, check="errors", reason="it fails", version=7),),
        decision=WatchDecision(condition=bad, action=Action.ROLL_BACK, reason="so", done="rolled back"),
    )
    observations.write(store, look)


class Prometheus:
    """Its HTTP interface."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def is_ready(self) -> bool:
        try:
            return bool(urllib.request.urlopen(f"{self.url}/-/ready", timeout=5).status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def ask(self, path: str, **query: str) -> Any:
        """The answer's data; an expression that it does not understand is an HTTP error."""
        with urllib.request.urlopen(
            f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}", timeout=10
        ) as answer:
            found = json.load(answer)
        assert found["status"] == "success", found
        return found["data"]

    def series(self, expression: str) -> list[Any]:
        return list(self.ask("query", query=expression)["result"])

    def alerts(self) -> dict[str, str]:
        """Rule → inactive, pending or firing; a rule that could not be evaluated fails."""
        rules = [rule for group in self.ask("rules")["groups"] for rule in group["rules"]]
        assert [rule["lastError"] for rule in rules if rule["health"] == "err"] == []
        return {rule["name"]: rule["state"] for rule in rules}


@pytest.fixture
def prometheus(
    store: ObjectStore, saved_model: Callable[..., Path], tmp_path: Path
) -> Iterator[tuple[Prometheus, RankingClient]]:
    """As docker-compose.yaml runs it, but on this machine and every second; and a client of its model server."""
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed (Debian: apt-get install prometheus)")
    store.put_json("deployments/recommend/anything.json", {})
    keep(store, 15)
    (tmp_path / "line").mkdir()
    saved_model(tmp_path / "line" / "1")
    exporter, asks = free_port(), free_port()
    started = [
        start([sys.executable, "-m", "reshelve.cli", "metrics", "--port", str(exporter)], tmp_path / "m.log")
    ]
    try:
        with (
            running_model_server({"line": tmp_path / "line"}) as server,
            RankingClient(server.grpc) as client,
        ):
            wait_until(lambda: port_is_open(exporter), SECONDS, "the exporter")
            config = tmp_path / "prometheus.yml"
            config.write_text(configuration({"watch": f"127.0.0.1:{exporter}", "model-server": server.rest}))
            started.append(
                start(
                    ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'tsdb'}",
                     f"--web.listen-address=127.0.0.1:{asks}"],
                    tmp_path / "prometheus.log",
                )
            )  # fmt: skip
            asked = Prometheus(asks)
            wait_until(asked.is_ready, SECONDS, "Prometheus, which does not start on a rule that is wrong")
            yield asked, client
    finally:
        for process in reversed(started):
            stop_group(process.pid)


def configuration(targets: dict[str, str]) -> str:
    """The file of the repository, with these targets, its rules where they lie, and a second between looks."""
    config = yaml.safe_load((COMPOSE / "prometheus" / "prometheus.yml").read_text())
    config["global"] = dict.fromkeys(config["global"], "1s")
    config["rule_files"] = [str(COMPOSE / "prometheus" / Path(name).name) for name in config["rule_files"]]
    assert {job["job_name"] for job in config["scrape_configs"]} == set(targets)
    for job in config["scrape_configs"]:
        job["static_configs"] = [{"targets": [targets[job["job_name"]]]}]
    return yaml.safe_dump(config)


def test_prometheus_reads_fires_and_draws(
    prometheus: tuple[Prometheus, RankingClient], store: ObjectStore
) -> None:
    asked, client = prometheus
    wait_until(lambda: len(asked.series("up == 1")) == 2, SECONDS, "both targets up")
    wait_until(lambda: bool(asked.series("reshelve_requests_total")), SECONDS, "the first look")
    keep(store, 0)  # what has risen since the first look is what a counter says
    client.predict("line", {"x": np.array([1], np.float32)}, version=1)

    expressions = {
        panel["title"]: target["expr"].replace("$ranker", "recommend")
        for panel in BOARD["panels"]
        for target in panel["targets"]
    }
    for title, expression in expressions.items():
        wait_until(lambda e=expression: bool(asked.series(e)), SECONDS, f"the board's {title}: {expression}")

    firing = {"BadVersion", "ErrorsOfAVersion", "ModelServersBusy"}
    wait_until(
        lambda: firing <= {name for name, state in asked.alerts().items() if state == "firing"},
        SECONDS,
        "the alerts of a failing version",
    )
    others = {name: state for name, state in asked.alerts().items() if name not in firing}
    assert others.pop("AgentSilent") == "pending", "silent for five minutes before it tells"
    assert set(others.values()) == {"inactive"}, others
