"""Whole nights on the real platform: a crash in each place that hurts, the night again, broken data, backfills.

The tests of this file tell one story and run in order on one platform.
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from tests.e2e.shop import Shop, eventually

from reshelve.platform.airflow_client import DagRun
from reshelve.processes import port_is_open

pytestmark = [pytest.mark.platform, pytest.mark.slow, pytest.mark.timeout(1800)]

FIRST, SECOND, BROKEN = date(2011, 8, 30), date(2011, 8, 31), date(2011, 9, 1)
HISTORY = "WHITE HANGING HEART T-LIGHT HOLDER ; RED HANGING HEART T-LIGHT HOLDER"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    home = tmp_path_factory.mktemp("shop")
    made = Shop(home / "home", home / "rankers")
    yield made
    made.command("platform", "down", timeout=120)
    assert not made.processes(lambda words: "reshelve" in " ".join(words)), (
        "the platform left processes behind"
    )


def ended(shop: Shop, run: DagRun, seconds: float) -> DagRun:
    client = shop.client()
    return eventually(f"{run.dag} {run.id}", lambda: (now := client.run(run)).ended and now, seconds, every=2)


def serving(shop: Shop) -> int:
    return int(shop.json("predict", "--ranker", "recommend", "--history", HISTORY)["version"])


def test_a_night_survives_kill_9_of_training_and_scheduler_and_ends_with_a_version_that_serves(
    shop: Shop, tmp_path: Path
) -> None:
    words = ("platform", "night", "--ranker", "recommend", "--partition", FIRST.isoformat())
    night = shop.start(*words, log=tmp_path / "night.log")
    try:

        def training() -> list[int]:
            """Workers of the night's training proper (trials of its tuning train in directories of their own)."""
            return [worker.pid for worker in shop.workers("/train/")]

        first = eventually("training", training, 900)
        for worker in shop.workers():
            worker.kill()
        second = eventually("training again", lambda: [p for p in training() if p not in first], 240)
        shop.kill("scheduler")
        eventually("the workers die with the scheduler", lambda: not set(second) & set(training()), 60)

        most = 0
        while night.poll() is None:
            most = max(most, len(training()))
            time.sleep(1)
        log = (tmp_path / "night.log").read_text()
        assert night.returncode == 0, log[-6000:]
        assert most <= 1, "training ran twice at once"
    finally:
        if night.poll() is None:
            night.kill()
    assert not shop.workers()
    (judged,) = shop.client().runs("clickstream")
    done = {task.id for task in shop.client().tasks(judged) if task.state != "skipped"}
    assert done == {"partition", "validate_retail"}, "only what the night reads"
    answer = shop.json("predict", "--ranker", "recommend", "--history", HISTORY, "--top", "5")
    assert answer["version"] == 20110830001
    assert len({item["item"] for item in answer["items"]}) == 5
    scores = [item["score"] for item in answer["items"]]
    assert scores == sorted(scores, reverse=True) and 0 < scores[0] <= 1
    for said in ("20110830001", "popularity", "promote", shop.machine.airflow_url):
        assert said in log, log[-4000:]


def test_rest_gives_the_answer_of_the_command(shop: Shop) -> None:
    answer = shop.json("predict", "--ranker", "recommend", "--history", HISTORY, "--top", "3")
    request = urllib.request.Request(
        f"http://127.0.0.1:{shop.ports.rest_port}/v1/models/recommend/labels/stable:predict",
        data=json.dumps({"instances": [{"history": HISTORY}]}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        found = json.load(response)["predictions"][0]
    assert found["item"][:3] == [item["item"] for item in answer["items"]]
    assert found["score"][:3] == pytest.approx([item["score"] for item in answer["items"]], rel=1e-3)


def test_the_night_again_is_quick_and_changes_nothing(shop: Shop) -> None:
    before = shop.json("status", "--ranker", "recommend")
    done = shop.command("platform", "night", "--partition", FIRST.isoformat(), timeout=120)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "done before" in done.stderr
    assert serving(shop) == 20110830001
    assert "20110830001" in json.dumps(before)


def test_killed_server_and_agent_serve_the_same_version_again(shop: Shop) -> None:
    shop.kill("model-server")
    shop.kill("agent")
    eventually("the server is gone", lambda: not port_is_open(shop.ports.grpc_port), 20)
    assert shop.command("platform", "up", timeout=240).returncode == 0
    eventually(
        "the version serves",
        lambda: shop.command("predict", "-r", "recommend", "--history", HISTORY).returncode == 0,
        90,
    )
    assert serving(shop) == 20110830001


def test_a_broken_partition_stops_its_night(shop: Shop) -> None:
    store, client, before = shop.store(), shop.client(), serving(shop)
    store.put(f"clickstream/retail/dt={BROKEN}/part-0.parquet", b"PAR1 torn off in the middle")
    run = ended(shop, client.trigger("clickstream", BROKEN), 240)
    assert run.state == "failed"
    told = client._call("GET", f"/dags/clickstream/dagRuns/{run.id}/taskInstances/validate_retail/links")
    page = f"{shop.machine.airflow_url}/reshelve/validation/retail/{BROKEN}/"
    assert told["extra_links"] == {
        "Validation report": page + "report.html",
        "Data Docs": page + "data_docs.html",
    }
    run = ended(shop, client.trigger("retrain_recommend", BROKEN), 240)
    assert run.state == "failed"
    states = {task.id: task.state for task in client.tasks(run)}
    assert states["await_verdict"] == "failed"
    assert states["examples"] in ("upstream_failed", "none", "skipped")
    left = [key for key, _ in store.list(f"runs/recommend/{BROKEN}") if not key.endswith("/pin.json")]
    assert not left, "nothing was done but begin"
    assert serving(shop) == before


def test_backfills_compare_with_what_serves_publish_and_never_release(shop: Shop) -> None:
    client, before = shop.client(), serving(shop)
    shop.json("land", "--source", "retail", "--from", str(SECOND), "--to", str(SECOND))
    quick = {"trials": 0, "compression": "none"}  # the first night has done both
    for dag, conf, seconds in (
        ("clickstream", {"source": "retail"}, 300),
        ("retrain_recommend", quick, 900),
    ):
        shop.airflow(
            "backfill", "create", "--dag-id", dag, "--from-date", str(SECOND), "--to-date", str(SECOND),
            "--max-active-runs", "1", "--dag-run-conf", json.dumps(conf),
        )  # fmt: skip
        run = eventually(
            f"the run of {dag}",
            lambda dag=dag: next((r for r in client.runs(dag) if r.partition == str(SECOND)), None),
            120,
        )
        assert ended(shop, run, seconds).state == "success"
    verdict = shop.store().get_json("models/recommend/20110831001/manifest.json")["gate"]
    assert verdict["verdict"] in ("promote", "hold") and verdict["reasons"]
    assert verdict["champion"]["version"] == before == 20110830001
    assert serving(shop) == before
