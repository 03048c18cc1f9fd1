"""Incidents planted on running processes: each leads to what the table names, within two looks.

Real: S3, the model server, its agent, TensorFlow graphs that fail or are slow on the inputs, the client library.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.planted import Customers, build_graphs, publish_graph, remember

from reshelve.clickstream.events import landed_prefix
from reshelve.config.ranker import Ranker
from reshelve.deployments.deployment_log import read_log, read_pointer
from reshelve.deployments.freeze import read_hold
from reshelve.errors import TryAgainError
from reshelve.landing.land import land
from reshelve.monitoring.observations import recent
from reshelve.monitoring.watch import look
from reshelve.processes import wait_until
from reshelve.protocol.reports import read_reports
from reshelve.protocol.traffic import Counts, TrafficReport, write_traffic
from reshelve.rollout.release import release
from reshelve.rollout.roll_back import rollback
from reshelve.store.objects import ObjectStore
from reshelve.validation.validate import validate

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return build_graphs(tmp_path_factory.mktemp("graphs"))


@pytest.fixture
def watched(ranker: Ranker) -> Ranker:
    """Few requests are enough, and nothing has to cool down."""
    return ranker.with_values(
        {
            "release.ready_seconds": 120,
            "watch.min_requests": 60,
            "watch.drift_requests": 150,
            "watch.agent_minutes": 0.3,
            "watch.silent_requests": 20,
            "watch.max_p95_ms": None,
            "watch.guard": {"cooldown_minutes": 0, "actions_a_day": 10},
        }
    )


@pytest.fixture
def shop(host: Any, store: ObjectStore) -> Iterator[Customers]:
    host.start_agent()
    host.start_server()
    made = Customers(host.grpc)
    yield made
    made.close()


def put(graph: Path, ranker: Ranker, day: date, work: Path) -> int:
    """Publish a version of a day and release it."""
    version = publish_graph(graph, ranker, day, work / graph.name)
    assert release(ranker, version, by="test")["state"] == "promoted"
    return version


def within_two_looks(shop: Customers, ranker: Ranker, requests: int = 100) -> dict[str, Any]:
    """The first look that is not inconclusive or quiet, of two."""
    found: dict[str, Any] = {}
    for _ in range(2):
        if requests:
            shop.serve(requests)
        found = look(ranker)
        if found["condition"] not in ("quiet", "inconclusive"):
            break
    return found


def test_bad_versions_are_taken_back_once(
    shop: Customers,
    store: ObjectStore,
    watched: Ranker,
    graphs: dict[str, Path],
    tmp_path: Path,
) -> None:
    one = put(graphs["good"], watched, date(2011, 8, 26), tmp_path)
    remember(one)
    shop.serve(20)
    assert look(watched)["condition"] == "quiet"
    for _ in range(3):
        shop.serve(100)
        assert look(watched)["condition"] == "quiet"

    failing = put(graphs["failing"], watched, date(2011, 8, 27), tmp_path)
    planned = (shop.serve(60), look(watched, dry_run=True))[1]
    assert planned["action"] == "roll back" and planned["done"].startswith("would")
    assert read_pointer(store, "recommend").stable == failing, "a dry run changed something"
    back = within_two_looks(shop, watched)
    assert (back["condition"], back["action"], back["alert"]) == ("bad version", "roll back", True), back
    pointer, entry = read_pointer(store, "recommend"), read_log(store, "recommend")[-1]
    assert (pointer.stable, pointer.previous) == (one, failing)
    assert (entry.action, entry.pointer.by) == ("rollback", "watch")
    assert "of the requests" in entry.pointer.reason and "RequestRefusedError" in entry.pointer.reason
    shop.serve(100)
    assert look(watched)["condition"] == "quiet", "it did not mend it"

    slow = put(graphs["slow"], watched, date(2011, 8, 28), tmp_path)
    back = within_two_looks(shop, watched)
    assert (back["condition"], back["action"]) == ("bad version", "roll back") and "p95" in back["reason"], (
        back
    )
    assert read_pointer(store, "recommend").stable == one

    # A person insists. The watch has said why not, and does not begin a quarrel.
    assert release(watched, slow, by="anna", allow_older=True)["state"] == "promoted"
    again = within_two_looks(shop, watched)
    assert (again["condition"], again["action"]) == (
        "bad version",
        "alert",
    ) and "already done for this cause" in again["refused"]
    assert read_pointer(store, "recommend").stable == slow

    # Nor does it go back to what was taken back: a person returns to the failing version.
    rollback(watched.name, to=failing, by="anna")
    stuck = within_two_looks(shop, watched)
    assert (stuck["condition"], stuck["action"]) == (
        "bad version",
        "alert",
    ) and "no version to roll back" in stuck["reason"]
    kept = recent(store, "recommend", 100)
    assert kept[-1].decision is not None and kept[-1].decision.reason == stuck["reason"]
    assert {seen.role.value for seen in kept[-1].versions} >= {"stable", "previous"}


def test_the_world_around_a_good_version(
    shop: Customers, host: Any, store: ObjectStore, watched: Ranker, graphs: dict[str, Path], tmp_path: Path
) -> None:
    one = put(graphs["good"], watched, date(2011, 8, 26), tmp_path)
    land("retail", date(2011, 8, 30), date(2011, 8, 30))
    validate("retail", date(2011, 8, 30))
    look(watched)
    for _ in range(3):
        shop.serve(160)
        assert look(watched)["condition"] == "quiet"

    shop.words = "an entirely other thing, and rather a long one,"
    shifted = within_two_looks(shop, watched, requests=200)
    assert (shifted["condition"], shifted["action"], shifted["retrain"]) == (
        "drift",
        "retrain",
        "2011-08-30",
    ), shifted

    store.put(f"{landed_prefix('retail', date(2011, 8, 31))}part.parquet", b"half a file")
    assert validate("retail", date(2011, 8, 31))["verdict"] == "stop"
    broken = within_two_looks(shop, watched, requests=200)
    assert (broken["condition"], broken["action"], broken["retrain"]) == ("broken data", "hold", None), broken
    assert read_hold(store, "recommend").by == "watch"
    two = publish_graph(graphs["good"], watched, date(2011, 8, 30), tmp_path / "two")
    with pytest.raises(TryAgainError, match="releases are frozen"):
        release(watched, two, by="test")
    store.delete([key for key, _ in store.list(landed_prefix("retail", date(2011, 8, 31)))])
    land("retail", date(2011, 8, 31), date(2011, 8, 31))
    validate("retail", date(2011, 8, 31))
    shop.serve(30)
    assert look(watched)["held"], "one look without the cause is not enough"
    shop.serve(30)
    lifted = look(watched)
    assert not lifted["held"] and read_hold(store, "recommend") is None
    assert lifted["release"] == two, "what waited is asked for"
    assert release(watched, two, by="test")["state"] == "promoted"

    shop.serve(200)
    assert look(watched)["condition"] == "quiet", "a version came after the shift"
    silent = within_two_looks(shop, watched, requests=0)
    assert (silent["condition"], silent["action"]) == ("no traffic", "hold"), silent

    host.kill(host.started[0])
    silence = watched.watch.agent_minutes * 60
    wait_until(
        lambda: all(one.age() > silence for one in read_reports(store, "recommend")), 60, "its silence"
    )
    dead = within_two_looks(shop, watched, requests=60)
    assert "dead agent: agent a has been silent" in " ".join(dead["findings"]), dead
    assert dead["action"] == "alert" and dead["alert"]
    shop.serve(30)
    assert look(watched)["alert"] is False, "people are told once"
    assert read_pointer(store, "recommend").stable == two and one != two


def test_a_report_alone_moves_nothing(
    shop: Customers, host: Any, store: ObjectStore, watched: Ranker, graphs: dict[str, Path], tmp_path: Path
) -> None:
    """Whoever can write one key says that every request fails, or is slow: the version itself says otherwise."""
    put(graphs["good"], watched, date(2011, 8, 26), tmp_path / "one")
    shop.serve(20)
    look(watched)
    shop.serve(100)
    assert look(watched)["condition"] == "quiet"
    two = put(graphs["good"], watched, date(2011, 8, 27), tmp_path / "two")
    sequence = read_pointer(store, "recommend").sequence

    def forge(counts: Counts) -> None:
        report = TrafficReport(client="forged", at=datetime.now(UTC), counts={sequence: {two: counts}})
        write_traffic(store, "recommend", report)

    forge(Counts())
    look(watched)
    forge(Counts(requests=5000, errors={"HTTP 500": 4000}, latency={60: 1000}))
    alone = look(watched)
    assert (alone["condition"], alone["action"]) == ("bad service", "alert"), alone
    assert "of the watch's own at most" in alone["reason"] and "the reports are wrong" in alone["reason"]
    assert read_pointer(store, "recommend").stable == two

    shop.serve(100)  # a client that tells the truth speaks against it without any question
    forge(Counts(requests=9000, errors={"HTTP 500": 8000}, latency={60: 1000}))
    beside = look(watched)
    assert (beside["condition"], beside["action"]) == ("bad service", "alert"), beside
    assert "only the client forged says so" in beside["reason"]
    assert read_pointer(store, "recommend").stable == two

    forge(Counts(requests=9000, errors={"HTTP 500": 8000}, latency={60: 1000}))
    shop.serve(100)
    assert look(watched)["condition"] == "quiet"
