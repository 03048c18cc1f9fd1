"""A version as the package stage leaves it, loaded again and asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file, save_file
from tensorflow_serving.apis import prediction_log_pb2

from reshelve.compression.compress import compress
from reshelve.errors import DataError
from reshelve.lineage import Run
from reshelve.packaging.catalogue import Catalogue
from reshelve.packaging.operations import check_operations
from reshelve.packaging.package import package, torch_logits


def packaged(run: Run) -> tuple[dict, Path, dict]:
    run.stage("compress").commit(compress(run))
    result = package(run)
    directory = run.stage("package").directory / "version"
    return result, directory, dict(tf.saved_model.load(str(directory)).signatures)


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
    catalogue = Catalogue.load(run.stage("examples").directory / "catalogue.parquet")
    assert answer["item"].numpy()[0, 0].decode() == catalogue.items[best]
    assert answer["title"].numpy()[0, 0].decode() == catalogue.titles[best]

    assert check_operations(version)
    lines = (version / "assets.extra" / "catalogue.jsonl").read_text().splitlines()
    assert json.loads(lines[3]) == {"item": "sku3", "title": "sku3", "events": 97}, (
        "an item without a title is called by its id"
    )
    about = json.loads((version / "assets.extra" / "reshelve.json").read_text())
    assert about["kind"] == "next_item" and about["top"] == 7 and about["precision"] == result["precision"]


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
        Catalogue.load(run.stage("examples").directory / "catalogue.parquet"),
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
    monkeypatch.setattr("reshelve.packaging.package.LARGEST_DIFFERENCE", 0.0)
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
