"""The ads of the sample through the real stages, with a small encoder: what is shown is learned from, and served."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from reshelve.compression.compress import compress
from reshelve.errors import DataError
from reshelve.evaluation.gate import gate
from reshelve.examples.build import build_examples
from reshelve.examples.formats import read_holdout
from reshelve.export.catalogue import PackagedCatalogue
from reshelve.export.layers import FloatLayers
from reshelve.export.operations import check_operations
from reshelve.export.package import package, torch_logits
from reshelve.features.columns import feature_columns
from reshelve.features.features import PairFeatures, read_features
from reshelve.kinds.pair.export import PairModule
from reshelve.landing.land import land
from reshelve.lineage.run import Run
from reshelve.model.trained import TrainedModel
from reshelve.pipeline.references import load_ranker
from reshelve.store.objects import ObjectStore
from reshelve.training.launch import train
from reshelve.validation.validate import validate_range

FIRST, LAST = date(2011, 8, 20), date(2011, 8, 31)
LEARNED = {"examples": build_examples, "train": train}
SERVED = {"compress": compress, "package": package, "gate": gate}


@pytest.fixture
def ads(store: ObjectStore, tmp_path: Path, small_bert: Path, kept: Any) -> Run:
    """A run of the project's own ranker file on a small encoder, its sample landed and validated."""
    kept.fill(store, lambda: (land("ads"), validate_range("ads", FIRST, LAST)))
    small = {
        "model.base": str(small_bert), "model.layers": 2, "model.max_length": 16, "training.batch_size": 64,
        "training.epochs": 1, "examples.max_examples": 6000, "compression.steps": [], "gates.max_queries": 60,
    }  # fmt: skip
    return Run(load_ranker("ads", small), LAST, store, tmp_path / "work")


@pytest.mark.slow
@pytest.mark.parametrize(
    "values",
    [
        {},
        {
            "model.towers": True,
            "model.pooling": "mean",
            "compression.steps": ["int8"],
            "compression.min_agreement": 0,
        },
    ],
    ids=["together", "apart, int8"],
)
def test_ads_are_served_with_what_was_learned_of_them(ads: Run, kept: Any, values: dict[str, object]) -> None:
    ads = replace(ads, ranker=ads.ranker.with_values(values))
    results = kept.stages(ads, LEARNED, "apart" if values else "together")
    results |= {name: ads.stage(name).commit(work(ads)) for name, work in SERVED.items()}
    examples = ads.stage("examples").directory
    rows = pq.read_table(examples / "train.parquet", columns=["features"]).num_rows
    assert rows == 6000 and results["package"]["max_logit_difference"] <= 1e-4
    form = json.loads((ads.stage("train").directory / "model.json").read_text())
    assert tuple(form["features"]) == feature_columns(ads.ranker.examples.features)
    assert results["train"]["validation_loss"] < results["train"]["first_validation_loss"]
    report = results["gate"]
    # Nothing but the drawn appeal, which only behaviour shows, and the words in common decide what is clicked.
    assert report["challenger"]["value"] > report["baselines"]["popularity"]
    assert report["calibration"]["challenger"]["predictions"] > 60, "lists without a click count too"

    version = ads.stage("package").directory / "version"
    assert check_operations(version)
    score = tf.saved_model.load(str(version)).signatures["serving_default"]
    asked = next(query for query in read_holdout(examples / "holdout.parquet") if query.relevant)
    items = [*asked.candidates, "never seen", ""]

    def scores(query: list[str], item: list[str]) -> np.ndarray:
        return score(query=tf.constant(query), item=tf.constant(item))["score"].numpy()

    together = scores([asked.text], items)
    assert np.isfinite(together).all()
    np.testing.assert_allclose(together, [scores([asked.text], [item])[0] for item in items], atol=1e-5)
    np.testing.assert_allclose(together, scores([asked.text] * len(items), items), atol=1e-5)


@pytest.mark.slow
def test_a_distilled_copy_learns_from_the_model_and_is_served(ads: Run, kept: Any) -> None:
    values = {"compression.steps": [{"step": "distil", "layers": 1}], "compression.tolerance": 1.0}
    ads = replace(ads, ranker=ads.ranker.with_values(values))
    kept.stages(ads, LEARNED, "together")
    result = ads.stage("compress").commit(compress(ads))
    (step,) = result["steps"]
    assert step["step"] == "distil" and step["layers"] == 1 and step["training_steps"] > 10
    assert step["bytes_after"] < step["bytes_before"]
    assert step["agreement"] > 0.3, "a copy that had learned nothing would order at random"
    assert step["kept"] is (step["latency"]["ratio"]["high"] < 1), step["reason"]
    assert result["reshaped"] is step["kept"]
    ads.stage("package").commit(package(ads))
    version = ads.stage("package").directory / "version"
    logits = tf.saved_model.load(str(version)).signatures["logits"]
    if step["kept"]:
        # What is served is what torch computes from the copy's own weights.
        inputs = {"query": ["red bag"], "item": ["a pink bag", "lantern"]}
        features = read_features(ads.stage("examples").directory, ads.ranker.examples.features)
        catalogue = PackagedCatalogue.load(ads.stage("examples").directory / "catalogue.parquet")
        copy = ads.stage("compress").directory
        shutil.copyfile(ads.stage("train").directory / "tokenizer.json", copy / "tokenizer.json")
        expected = torch_logits(copy, catalogue, {**inputs, "query": ["red bag"] * 2}, features)
        found = logits(**{name: tf.constant(texts) for name, texts in inputs.items()})["logits"]
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.slow
def test_a_model_is_not_packaged_with_other_features_than_it_learned_from(ads: Run, kept: Any) -> None:
    kept.stages(ads, LEARNED, "together")
    examples, trained = ads.stage("examples").directory, ads.stage("train").directory
    model, catalogue = TrainedModel.load(trained), PackagedCatalogue.load(examples / "catalogue.parquet")

    def packaged(features: PairFeatures | None) -> object:
        return PairModule(model, FloatLayers(model), trained / "tokenizer.json", catalogue, features)

    assert packaged(read_features(examples, ads.ranker.examples.features))
    for features in (None, read_features(examples, ("text", "behaviour"))):
        with pytest.raises(DataError, match="the model reads other features"):
            packaged(features)
