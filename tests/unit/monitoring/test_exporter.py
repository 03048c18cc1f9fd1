"""`reshelve metrics` as Prometheus reads it: a real process, a real store, Prometheus' own parser."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from reshelve.monitoring import exporter, observations
from reshelve.monitoring.exporter import METRICS, Looks
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
from reshelve.processes import free_port, start, stop_group, wait_until
from reshelve.store.objects import ObjectStore, impatient_store

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def keep(store: ObjectStore, minutes: int, requests: int = 100, held: str = "") -> None:
    """A look so many minutes ago."""
    found = Finding(condition=Condition.BAD_VERSION, check="errors", reason="it fails", version=7)
    observations.write(
        store,
        Observation(
            ranker="recommend",
            at=datetime.now(UTC) - timedelta(minutes=minutes),
            versions=(VersionTraffic(version=7, role=VersionRole.STABLE, requests=requests, errors=3, rejected=2, refusals=11, p50_ms=4, p95_ms=9, p99_ms=20, clicks=5, clickable=50),),
            agents=(AgentSeen(agent="a", live=False, age_seconds=300, memory_bytes=1024),),
            measured={"shift_of_scores": 0.1},
            findings=(found,),
            decision=WatchDecision(condition=Condition.BAD_VERSION, action=Action.ROLL_BACK, reason="so", done="rolled back"),
            held=held,
        ),
    )  # fmt: skip
    store.put_json("deployments/recommend/anything.json", {})


def samples(text: str) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def address(store: ObjectStore, tmp_path: Path) -> Iterator[str]:
    """The running exporter."""
    keep(store, 5, held="broken data")
    port = free_port()
    command = [sys.executable, "-m", "reshelve.cli", "metrics", "--port", str(port)]
    process = start(command, tmp_path / "metrics.log")
    url = f"http://127.0.0.1:{port}/metrics"

    def up() -> bool:
        try:
            return bool(urllib.request.urlopen(url, timeout=5).status == 200)
        except (urllib.error.URLError, OSError):
            return False

    wait_until(up, 60, "the exporter")
    yield url
    stop_group(process.pid)


def test_what_prometheus_reads(address: str) -> None:
    found = samples(urllib.request.urlopen(address, timeout=10).read().decode())
    names = {name.removesuffix("_total") for name, _ in found}
    assert names == set(METRICS), "every metric is named in METRICS, and METRICS names no other"
    version = (("ranker", "recommend"), ("role", "stable"), ("version", "7"))
    assert (
        found["reshelve_requests_total", version] == 100
        and found["reshelve_request_errors_total", version] == 3
        and found["reshelve_rejected_requests_total", version] == 2
        and found["reshelve_refusals_total", version] == 11
    )
    assert found["reshelve_found", (("condition", "bad version"), ("ranker", "recommend"))] == 1
    assert found["reshelve_found", (("condition", "drift"), ("ranker", "recommend"))] == 0
    assert found["reshelve_actions_total", (("action", "roll back"), ("ranker", "recommend"))] == 1
    assert found["reshelve_releases_held", (("ranker", "recommend"),)] == 1
    assert found["reshelve_agent_live", (("agent", "a"), ("ranker", "recommend"))] == 0
    assert found["reshelve_click_through", (("ranker", "recommend"), ("version", "7"))] == 0.1
    assert 290 < found["reshelve_look_age_seconds", (("ranker", "recommend"),)] < 400


def test_a_look_is_counted_once_and_an_old_one_never(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "_READ_SECONDS", 0)
    registry = CollectorRegistry()
    registry.register(Looks(store))
    key = ("reshelve_requests_total", (("ranker", "recommend"), ("role", "stable"), ("version", "7")))

    def requests() -> float | None:
        return samples(generate_latest(registry).decode()).get(key)

    assert requests() is None
    keep(store, 300)
    assert requests() is None, "it was before this process began to count"
    keep(store, 20)
    keep(store, 10)
    assert (requests(), requests()) == (200, 200)
    keep(store, 0, requests=7)
    assert requests() == 207


def test_the_store_away_is_a_metric(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    registry = CollectorRegistry()
    registry.register(Looks(impatient_store()))
    assert samples(generate_latest(registry).decode())["reshelve_store_reachable", ()] == 0
