"""Incidents for tests: versions that fail or are slow on the inputs, and customers who ask all the time."""

from __future__ import annotations

import io
import itertools
import json
import shutil
import subprocess
import sys
import threading
import time
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow.parquet as pq
from tests.deployed import judged

from reshelve.clickstream.privacy import Key
from reshelve.client.request_log import Logged, requests_prefix, table
from reshelve.client.routing import Caller
from reshelve.config.ranker import Ranker
from reshelve.errors import ReshelveError
from reshelve.lineage.run import Run
from reshelve.pipeline.publish import publish
from reshelve.processes import wait_until
from reshelve.protocol.traffic import read_traffic_reports
from reshelve.store.objects import object_store

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


def build_graphs(root: Path) -> dict[str, Path]:
    """SavedModels: `good`, and `failing` and `slow` on the inputs, which no probe asks."""
    found = {kind: root / kind for kind in ("good", "failing", "slow")}
    command = [sys.executable, "-c", _BUILD, *map(str, found.values())]
    subprocess.run(command, check=True, capture_output=True, timeout=400)
    for path in found.values():
        lines = "".join(
            json.dumps({"item": f"i{n}", "title": f"title {n}", "events": 9 - n}) + "\n" for n in range(5)
        )
        (path / "assets.extra").mkdir()
        (path / "assets.extra" / "catalogue.jsonl").write_text(lines)
    return found


class Customers:
    """Two of them ask while `serve` waits; `words` is what they ask, and a `who` that is no customer meets no incident."""

    def __init__(self, server: str) -> None:
        self.caller = Caller("recommend", [server], object_store(), name="shop", every=0.2)
        self.open, self.stop = threading.Event(), threading.Event()
        self.words, self.who, self.asked, self.number = "title", "customer", 0, itertools.count()
        self.threads = [threading.Thread(target=self._customer, daemon=True) for _ in range(2)]
        for thread in self.threads:
            thread.start()

    def _customer(self) -> None:
        while not self.stop.wait(0.01):
            if not self.open.is_set():
                continue
            number = next(self.number)
            text = f"{self.words} {number % 7} ; {self.who} {number % 100}"
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
        wait_until(self._reported, 60, "their report")

    def _reported(self) -> bool:
        counts = self.caller.meter.report().counts
        written = read_traffic_reports(object_store(), "recommend")
        return not counts or any(one.client == "shop" and one.counts == counts for one in written)

    def close(self) -> None:
        """They leave."""
        self.stop.set()
        for thread in self.threads:
            thread.join(timeout=10)
        self.caller.close()


def remember(version: int) -> None:
    """Log the inputsed of a version that answered them: what the watch asks again before it acts."""
    key, now = Key(date(2011, 1, 1), "a key of these tests alone"), datetime.now(UTC)
    rows = [
        Logged(now, str(number), version, "stable", "serving_default", f"title {number % 7} ; customer {number}", ("i0",), (0.4,))
        for number in range(40)
    ]  # fmt: skip
    body = io.BytesIO()
    pq.write_table(table(rows, [key], now.date()), body)
    object_store().put(f"{requests_prefix('recommend', now.date())}shop-1-000001.parquet", body.getvalue())


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
    run.stage("gate").commit(judged(run, {"verdict": "promote", "reasons": ["measured"]}))
    return int(publish(run)["version"])
