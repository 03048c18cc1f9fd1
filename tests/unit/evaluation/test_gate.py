"""The gate over real SavedModels in a real model server."""

from __future__ import annotations

import json
import shutil
from datetime import date, datetime
from pathlib import Path

import pytest
from tests.deployed import judged

from reshelve.config.kind_names import kind_names
from reshelve.config.ranker import Ranker
from reshelve.deployments.deployment_log import Advance, Offer, Promote, move_pointer
from reshelve.deployments.release_table import Event, ReleaseState
from reshelve.errors import DataError
from reshelve.evaluation.gate import gate
from reshelve.evaluation.scoring import answers_as, order
from reshelve.examples.catalogue import Catalogue
from reshelve.examples.formats import EVENTS, HOLDOUT, HoldoutQuery, write_rows
from reshelve.examples.readers import for_compression
from reshelve.lineage.run import Run
from reshelve.pipeline.publish import publish

DAY = date(2011, 8, 30)
ITEMS = [f"i{number:02}" for number in range(30)]
KINDS = pytest.mark.parametrize("kind", ["next_item", "pair"])


def run_of(store, tmp_path: Path, kind: str, partition: date = DAY, **gates) -> Run:
    ranker = Ranker.model_validate(
        {"name": "shelf", "title": "A shelf", "kind": kind, "data": {"source": "shop"},
         "gates": {"metric": "recall@5", **gates}}
    )  # fmt: skip
    run = Run(ranker, partition, store, tmp_path / f"work-{kind}")
    examples = run.stage("examples").directory
    Catalogue(ITEMS, ITEMS, [1] * 30, [1] * 30).write(examples / "catalogue.parquet")
    event = {"event_time": datetime(2011, 8, 29), "event_type": "click", "user_id": None, "query": None}
    rows = [{**event, "session_id": item, "item_id": item} for item in ITEMS]
    write_rows(examples / "events.parquet", EVENTS, rows)
    # The right answer is always one of the last items; popularity, all ties, puts them last.
    asked = [
        HoldoutQuery(str(n), f"question {n}", [ITEMS[25 + n % 5]], 1.0, str(n),
                     candidates=ITEMS if kind == "pair" else []).row()
        for n in range(40)
    ]  # fmt: skip
    write_rows(examples / "holdout.parquet", HOLDOUT, asked)
    run.stage("examples").commit(
        {"holdout_partitions": [str(partition)], "holdout_begins": str(partition), "verdicts": {}}
    )
    run.stage("train").commit({"base": None})
    return run


def package_model(run: Run, best: list[str]) -> None:
    """A version that answers `best` first, whatever it is asked."""
    import tensorflow as tf

    ranked = [*best, *(item for item in ITEMS if item not in best)]
    scores = [1 / (place + 1) for place in range(len(ranked))]
    module = tf.Module()
    texts = tf.TensorSpec([None], tf.string)
    if run.ranker.kind == "next_item":

        @tf.function(input_signature=[texts])
        def answer(history):
            rows = tf.size(history)
            tiled = {"item": tf.constant(ranked), "title": tf.constant(ranked), "score": tf.constant(scores)}
            return {name: tf.tile(value[None], [rows, 1]) for name, value in tiled.items()}
    else:

        @tf.function(input_signature=[texts, texts])
        def answer(query, item):
            same = tf.cast(item[:, None] == tf.constant(ranked)[None], tf.float32)
            empty = tf.cast(tf.strings.length(query)[:1] < 0, tf.float32)  # the graph must use its input
            return {"score": tf.linalg.matvec(same, tf.constant(scores)) + empty}

    directory = run.stage("package").directory / "version"
    shutil.rmtree(directory, ignore_errors=True)
    tf.saved_model.save(module, str(directory), signatures={"serving_default": answer})
    (directory / "assets.extra").mkdir()
    lines = [json.dumps({"item": item, "title": item, "events": 1}) for item in ITEMS]
    (directory / "assets.extra" / "catalogue.jsonl").write_text("\n".join(lines))
    (directory / "assets.extra" / "reshelve.json").write_text(json.dumps({"kind": run.ranker.kind}))
    run.stage("package").commit({})


def serve(run: Run) -> int:
    """Publish the run's version and make it the champion."""
    run.stage("gate").commit(judged(run, {"verdict": "promote", "reasons": []}))
    version = publish(run)["version"]
    loaded, probed = (Event.LOADED, ReleaseState.LOADING), (Event.PROBED, ReleaseState.PROBING)
    way = (Offer(version), Advance(version, *loaded), Advance(version, *probed), Promote(version))
    for change in way:
        move_pointer(run.store, "shelf", change, by="test", reason="")
    return version


@pytest.mark.slow
@KINDS
def test_a_better_version_is_promoted_and_a_worse_one_rejected(store, tmp_path, kind):
    run = run_of(store, tmp_path, kind)
    package_model(run, ITEMS[25:])
    first = gate(run)
    assert (first["verdict"], first["champion"]) == ("promote", None)
    assert first["challenger"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert first["baselines"] == {"popularity": 0.0, "bm25": 0.0, "cooccurrence": 0.0}
    assert json.loads((run.stage("gate").directory / "report.json").read_text()) == first
    assert first["slices"]["item/tail"]["values"]["challenger"] == 1.0
    assert first["slices"]["item/tail"]["difference"] is None
    left = sum(not for_compression(str(n)) for n in range(40))
    assert 20 < left < 40 and first["queries"] == left, "the others are the compression verdict's"
    assert first["calibration"]["challenger"]["predictions"] == (
        left if kind == "next_item" else left * len(ITEMS)
    )
    asked = first["latency"]["challenger"]
    assert asked["requests"] > 0 and asked["rows"] >= left and 0 < asked["p50"] <= asked["p99"]
    assert first["exposure"]["shown"]["challenger"]["coverage"] == pytest.approx(5 / 30)
    champion = serve(run)

    package_model(run, [*ITEMS[25:27], *ITEMS[:10]])
    worse = gate(run)
    assert worse["verdict"] == "reject"
    assert worse["champion"]["version"] == champion
    assert worse["champion"]["value"] == 1.0
    assert worse["champion"]["difference"] == pytest.approx(worse["challenger"]["value"] - 1.0)
    assert any("worse than the champion" in reason for reason in worse["reasons"])
    assert any("slice item/tail is worse" in reason for reason in worse["reasons"])
    assert worse["slices"]["item/tail"]["difference"]["high"] < -0.05
    assert worse["slices"]["item/tail"]["values"]["champion"] == 1.0
    assert worse["calibration"]["champion"] == first["calibration"]["challenger"]


@pytest.mark.slow
def test_a_champion_of_a_newer_partition_is_not_compared(store, tmp_path):
    newer = run_of(store, tmp_path, "next_item", partition=date(2011, 8, 31))
    package_model(newer, ITEMS[25:])
    serve(newer)
    run = run_of(store, tmp_path, "next_item")
    package_model(run, ITEMS[25:])
    result = gate(run)
    assert result["verdict"] == "hold"
    assert result["champion"]["value"] is None
    assert any("newer partition" in reason for reason in result["reasons"])


@pytest.mark.slow
def test_a_champion_of_another_kind_is_not_compared(store, tmp_path):
    earlier = run_of(store, tmp_path, "next_item", partition=date(2011, 8, 29))
    package_model(earlier, ITEMS[25:])
    serve(earlier)
    run = run_of(store, tmp_path, "pair")
    package_model(run, ITEMS[25:])
    result = gate(run)
    assert (result["verdict"], result["champion"]) == ("promote", None)
    assert any("no version of this kind serves yet" in reason for reason in result["reasons"])


@pytest.mark.parametrize("kind", kind_names())
def test_a_version_says_its_kind(tmp_path, kind):
    (tmp_path / "assets.extra").mkdir()
    (tmp_path / "assets.extra" / "reshelve.json").write_text(json.dumps({"kind": kind}))
    assert answers_as(tmp_path) == kind


@pytest.mark.parametrize("body", [None, "{", "{}", '{"kind": "oracle"}'])
def test_a_version_that_does_not_say_its_kind_is_bad_data(tmp_path, body):
    (tmp_path / "assets.extra").mkdir()
    if body is not None:
        (tmp_path / "assets.extra" / "reshelve.json").write_text(body)
    with pytest.raises(DataError, match=r"reshelve\.json: the version's description cannot be read"):
        answers_as(tmp_path)


def test_ties_unknown_items_and_broken_scores_help_nobody():
    known = frozenset("abcd")
    assert order(["b", "a", "x", "c", "d"], [0.5, 0.5, 0.9, float("nan"), 0.7], known) == [
        "d",
        "a",
        "b",
        "c",
        "x",
    ]
