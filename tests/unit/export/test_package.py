"""A version as the package stage leaves it, loaded again and asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from safetensors.numpy import load_file, save_file
from tensorflow_serving.apis import prediction_log_pb2
from tests.deployed import judged

from reshelve.compression.compress import compress
from reshelve.errors import DataError
from reshelve.export.catalogue import PackagedCatalogue
from reshelve.export.known_answers import FILE as KNOWN_ANSWERS
from reshelve.export.known_answers import KNOWN
from reshelve.export.operations import check_operations
from reshelve.export.package import package, torch_logits
from reshelve.export.warmup import FILE as WARM_UP
from reshelve.lineage.run import Run
from reshelve.modelserver.local_server import running_model_server
from reshelve.pipeline.publish import publish
from reshelve.protocol.version_items import read_catalogue
from reshelve.rollout.probe import ProbeQuestions, probe
from reshelve.rollout.recorded import KnownAnswer, known_answers, recorded_requests
from reshelve.store.versions import require_manifest


def packaged(run: Run) -> tuple[dict, Path, dict]:
    run.stage("compress").commit(compress(run))
    result = package(run)
    directory = run.stage("package").directory / "version"
    return result, directory, dict(tf.saved_model.load(str(directory)).signatures)


def assert_a_server_has_to_give_the_answers_that_packaging_got(run: Run, result: dict) -> None:
    """The answers that travel with a version, asked of the real server that has to give them again."""
    run.stage("package").commit(result)
    run.stage("gate").commit(judged(run, {"verdict": "promote", "reasons": ["measured"]}))
    name, version = run.ranker.name, int(publish(run)["version"])
    manifest = require_manifest(run.store, name, version)
    known = known_answers(run.store, manifest)
    assert known is not None and known.score.shape[0] == KNOWN
    asked = ProbeQuestions(
        read_catalogue(run.store, name, version), recorded_requests(run.store, manifest), known
    )
    with running_model_server({name: run.stage("package").directory / "version"}) as addresses:
        good = probe(run.ranker, 1, addresses.grpc, asked)
        other = replace(asked, known=KnownAnswer(known.request, known.score * 1.1 + 0.01))
        shorter = replace(asked, known=KnownAnswer(known.request, known.score[:-1]))
        bad = [probe(run.ranker, 1, addresses.grpc, questions).problem for questions in (other, shorter)]
    assert good.problem is None
    assert str(bad[0]).startswith("its known answer differs here by ")
    assert bad[1] == "its known answer has another form here"


def strings(*texts: str) -> tf.Tensor:
    return tf.constant([text.encode() for text in texts])


@pytest.mark.slow
def test_a_next_item_version(trained_run: Callable[..., Run]) -> None:
    run = trained_run("next_item", "mean", {"compression.steps": ["int8"]})
    result, version, signatures = packaged(run)

    assert result["max_logit_difference"] <= 1e-4
    assert result["bytes"] > 100_000 and set(result["latency_ms"]) == {"1", "8", "32"}
    answer = signatures["serving_default"](history=strings("Red gift bag ; sku3", ""))
    assert answer["item"].shape == answer["title"].shape == answer["score"].shape == (2, 7)
    logits = signatures["logits"](history=strings("Red gift bag ; sku3", ""))["logits"].numpy()
    expected = np.exp(logits - logits.max(1, keepdims=True))
    expected = np.sort(expected / expected.sum(1, keepdims=True))[:, ::-1][:, :7]
    assert np.allclose(answer["score"], expected, atol=1e-5), "scores are probabilities, best first"
    best = int(logits[0].argmax())
    catalogue = PackagedCatalogue.load(run.stage("examples").directory / "catalogue.parquet")
    assert answer["item"].numpy()[0, 0].decode() == catalogue.items[best]
    assert answer["title"].numpy()[0, 0].decode() == catalogue.titles[best]

    assert check_operations(version)
    lines = (version / "assets.extra" / "catalogue.jsonl").read_text().splitlines()
    assert json.loads(lines[3]) == {"item": "sku3", "title": "sku3", "events": 97}, (
        "an item without a title is called by its id"
    )
    about = json.loads((version / "assets.extra" / "reshelve.json").read_text())
    assert about["kind"] == "next_item" and about["top"] == 7 and about["precision"] == result["precision"]
    assert_a_server_has_to_give_the_answers_that_packaging_got(run, result)


@pytest.mark.slow
def test_no_file_of_a_version_holds_what_one_customer_asked(trained_run: Callable[..., Run]) -> None:
    """Held-out questions measure it; warm-up requests and known answers that travel with it are made of titles."""
    run = trained_run("pair", "cls")
    path = run.stage("examples").directory / "holdout.parquet"
    table = pq.read_table(path)
    own = pa.array([f"anna huber birkenweg {number}" for number in range(table.num_rows)])
    pq.write_table(table.set_column(table.schema.get_field_index("text"), "text", own), path)
    _, version, _ = packaged(run)
    files = [file for file in version.rglob("*") if file.is_file()]
    assert {WARM_UP.name, KNOWN_ANSWERS.name} <= {file.name for file in files}
    assert [file.name for file in files if b"birkenweg" in file.read_bytes()] == []


@pytest.mark.slow
def test_a_pair_version(trained_run: Callable[..., Run]) -> None:
    run = trained_run("pair", "cls", {"compression.steps": []})
    result, version, signatures = packaged(run)

    assert result["precision"] == "float32" and result["max_logit_difference"] <= 1e-4
    weights = (run.stage("train").directory / "model.safetensors").stat().st_size
    assert result["bytes"] < 1.3 * weights, "both signatures share one copy of the weights"
    score = signatures["serving_default"]
    by_id = score(query=strings("pink café"), item=strings("sku1", "sku3", "sku0"))["score"].numpy()
    by_text = score(
        query=strings("pink café"), item=strings("Café lantern, pink no 1", "sku3", "Red gift bag no 0")
    )["score"].numpy()
    assert np.allclose(by_id, by_text, atol=1e-6), (
        "an id stands for its title; an unknown id is the text itself"
    )
    each = score(query=strings(*["pink café"] * 3), item=strings("sku1", "sku3", "sku0"))["score"].numpy()
    assert np.allclose(by_id, each, atol=1e-6), "one query goes with every item"
    alone = np.concatenate(
        [score(query=strings("pink café"), item=strings(item))["score"] for item in ("sku1", "sku3", "sku0")]
    )
    assert np.allclose(by_id, alone, atol=1e-5), "padding changes nothing"

    train, catalogue = (
        run.stage("train").directory,
        PackagedCatalogue.load(run.stage("examples").directory / "catalogue.parquet"),
    )
    inputs = {"query": ["lantern"], "item": ["sku1", "sku2", "a title nobody knows"]}
    logits = signatures["logits"](**{name: strings(*texts) for name, texts in inputs.items()})["logits"]
    assert np.allclose(logits, torch_logits(train, catalogue, inputs), atol=1e-4)

    path = str(version / "assets.extra" / "tf_serving_warmup_requests")
    logs = [prediction_log_pb2.PredictionLog.FromString(r.numpy()) for r in tf.data.TFRecordDataset(path)]
    sizes = []
    for log in logs:
        request = log.predict_log.request
        assert request.model_spec.name == "search"
        inputs = {name: tf.constant(tf.make_ndarray(proto)) for name, proto in request.inputs.items()}
        sizes.append(len(inputs["item"]))
        signatures[request.model_spec.signature_name](**inputs)
    assert sizes == [1, 8, 32, 1, 8, 32]


def test_a_graph_that_differs_from_the_model_is_never_packaged(
    trained_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained_run("pair", "mean", {"compression.steps": []})
    run.stage("compress").commit(compress(run))
    monkeypatch.setattr("reshelve.export.package.LARGEST_DIFFERENCE", 0.0)
    with pytest.raises(DataError, match="differs from the trained model"):
        package(run)
    assert not (run.stage("package").directory / "version").exists()


def test_missing_weights_are_named(trained_run: Callable[..., Run]) -> None:
    run = trained_run("pair", "cls", {"compression.steps": []})
    run.stage("compress").commit(compress(run))
    path = run.stage("train").directory / "model.safetensors"
    save_file({name: t for name, t in load_file(path).items() if name != "head.bias"}, path)
    with pytest.raises(DataError, match=r"head\.bias"):
        package(run)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "pooling"), [("next_item", "mean"), ("pair", "cls")])
def test_minilm_keeps_its_ranking_in_int8(trained_run: Callable[..., Run], kind: str, pooling: str) -> None:
    run = trained_run(kind, pooling, real=True)
    result, _, _ = packaged(run)
    assert result["max_logit_difference"] <= 1e-4
    (step,) = run.stage("compress").required()["steps"]
    assert step["agreement"] >= 0.95
    assert step["latency"]["ratio"]["low"] <= step["latency"]["ratio"]["high"]
    assert step["bytes_after"] < 0.3 * step["bytes_before"]
    assert result["precision"] == ("int8" if step["kept"] else "float32")
    if kind == "pair":
        assert_a_server_has_to_give_the_answers_that_packaging_got(run, result)
