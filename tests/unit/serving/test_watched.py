"""Incidents planted on running processes: each leads to what the table names, within two looks.

Real: S3, the model server, its agent, TensorFlow graphs that fail or are slow on what customers ask, the client library.
"""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from reshelve.clickstream.events import landed_prefix
from reshelve.clickstream.landing import land
from reshelve.clickstream.validation import validate
from reshelve.errors import ReshelveError, TryAgainError
from reshelve.lineage import Run
from reshelve.monitoring.observations import recent
from reshelve.monitoring.watch import look
from reshelve.processes import wait_until
from reshelve.rankers import Ranker
from reshelve.serving.release import release, rollback
from reshelve.serving.routing import Caller
from reshelve.store import versions
from reshelve.store.deployments import read_log, read_pointer
from reshelve.store.holds import read_hold
from reshelve.store.objects import ObjectStore, object_store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

_BUILD = """
import sys, tensorflow as tf
class Ranking(tf.Module):
    def __init__(self, kind):
        self.kind = kind
        self.weights = tf.constant(tf.random.stateless_normal([400, 400], seed=[1, 2]) / 30)
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="history")])
    def ask(self, history):
        rows = tf.shape(history)[0]
        customer = tf.reduce_any(tf.strings.regex_full_match(history, ".*customer.*"))  # never in a probe
        score = tf.tile([[0.4, 0.3, 0.2, 0.06, 0.04]], [rows, 1])
        if self.kind == "failing":
            score = tf.reshape(score, tf.where(customer, [7, 7], [rows, 5]))
        if self.kind == "slow":
            times = tf.where(customer, 40, 1)
            _, spent = tf.while_loop(lambda n, x: n < times, lambda n, x: (n + 1, tf.tanh(self.weights @ x)), [0, self.weights])
            score += 0 * spent[0, 0]
        names = tf.tile([[f"i{n}" for n in range(5)]], [rows, 1])
        return {"item": names, "title": names, "score": score}
for path in sys.argv[1:]:
    module = Ranking(path.rsplit("/", 1)[1])
    tf.saved_model.save(module, path, signatures={"serving_default": module.ask.get_concrete_function()})
"""


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """SavedModels: `good`, and `failing` and `slow` on what customers ask, which no probe asks."""
    found = {kind: tmp_path_factory.mktemp("graphs") / kind for kind in ("good", "failing", "slow")}
    subprocess.run(
        [sys.executable, "-c", _BUILD, *map(str, found.values())],
        check=True,
        capture_output=True,
        timeout=400,
    )
    for path in found.values():
        lines = "".join(
            json.dumps({"item": f"i{n}", "title": f"title {n}", "events": 9 - n}) + "\n" for n in range(5)
        )
        (path / "assets.extra").mkdir()
        (path / "assets.extra" / "catalogue.jsonl").write_text(lines)
    return found


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


class Shop:
    """Customers who ask all the time."""

    def __init__(self, host: Any) -> None:
        self.caller = Caller("recommend", [host.grpc], object_store(), name="shop", every=0.2)
        self.open, self.stop = threading.Event(), threading.Event()
        self.words, self.asked, self.number = "title", 0, itertools.count()
        self.threads = [threading.Thread(target=self._customer, daemon=True) for _ in range(2)]
        for thread in self.threads:
            thread.start()

    def _customer(self) -> None:
        while not self.stop.wait(0.01):
            if not self.open.is_set():
                continue
            number = next(self.number)
            text = f"{self.words} {number % 7} ; customer {number % 100}"
            try:
                self.caller.predict({"history": [text]}, session=str(number), timeout=5)
            except ReshelveError:  # counted by the caller, which is what the watch reads
                time.sleep(0.01)
            self.asked += 1

    def serve(self, requests: int) -> None:
        """So many more, and their report."""
        before = self.asked
        self.open.set()
        wait_until(lambda: self.asked >= before + requests, 120, f"{requests} requests")
        self.open.clear()
        time.sleep(0.7)

    def close(self) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join(timeout=10)
        self.caller.close()


@pytest.fixture
def shop(host: Any, store: ObjectStore) -> Iterator[Shop]:
    host.start_agent()
    host.start_server()
    made = Shop(host)
    yield made
    made.close()


def publish_graph(graph: Path, ranker: Ranker, day: date, work: Path) -> int:
    """Publish a version of a day."""
    run = Run(ranker, day, object_store(), work)
    shutil.copytree(graph, run.stage("package").directory / "version")
    for stage, result in {
        "package": {"bytes": 1},
        "examples": {"verdicts": {}},
        "train": {"base": None},
    }.items():
        run.stage(stage).commit(result)
    run.stage("gate").commit({"verdict": "promote", "reasons": ["measured"]})
    return int(versions.publish(run)["version"])


def put(graph: Path, ranker: Ranker, day: date, work: Path) -> int:
    """Publish a version of a day and release it."""
    version = publish_graph(graph, ranker, day, work / graph.name)
    assert release(ranker, version, by="test")["state"] == "promoted"
    return version


def within_two_looks(shop: Shop, ranker: Ranker, requests: int = 100) -> dict[str, Any]:
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
    shop: Shop, store: ObjectStore, watched: Ranker, graphs: dict[str, Path], tmp_path: Path
) -> None:
    one = put(graphs["good"], watched, date(2011, 8, 26), tmp_path)
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
    assert (entry.action, entry.pointer.by) == (
        "rollback",
        "watch",
    ) and "requests fail" in entry.pointer.reason
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
    ) and "once for this cause" in again["refused"]
    assert read_pointer(store, "recommend").stable == slow

    # Nor does it go back to what was taken back: a person returns to the failing version.
    rollback(watched, to=failing, by="anna")
    stuck = within_two_looks(shop, watched)
    assert (stuck["condition"], stuck["action"]) == (
        "bad version",
        "alert",
    ) and "no version to go back" in stuck["reason"]
    kept = recent(store, "recommend", 100)
    assert kept[-1].decision is not None and kept[-1].decision.reason == stuck["reason"]
    assert {seen.role.value for seen in kept[-1].versions} >= {"stable", "previous"}


def test_the_world_around_a_good_version(
    shop: Shop, host: Any, store: ObjectStore, watched: Ranker, graphs: dict[str, Path], tmp_path: Path
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
    with pytest.raises(TryAgainError, match="releases are held"):
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
    time.sleep(22)
    dead = within_two_looks(shop, watched, requests=60)
    assert "dead agent: agent a has been silent" in " ".join(dead["findings"]), dead
    assert dead["action"] == "alert" and dead["alert"]
    shop.serve(30)
    assert look(watched)["alert"] is False, "people are told once"
    assert read_pointer(store, "recommend").stable == two and one != two
