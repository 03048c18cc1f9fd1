"""Every graph that packaging makes, of each kind in each precision, only computes: the list is as long as they need."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tests.searched import searched
from tests.shown import counted

from reshelve.clickstream.remember import EVERYTHING
from reshelve.client.client import RankingClient
from reshelve.client.errors import RequestRefusedError
from reshelve.compression.calibration import calibrate
from reshelve.config.compression import Int8Step
from reshelve.export.batches import batches, example_rows
from reshelve.export.layers import FloatLayers
from reshelve.export.limits import MOST_BYTES
from reshelve.export.module import RankerModule
from reshelve.export.operations import check_operations
from reshelve.export.precisions.base import Precision
from reshelve.export.precisions.int8 import Int8
from reshelve.export.precisions.registry import PRECISIONS
from reshelve.export.tokenizer import GraphTokenizer
from reshelve.export.version import VersionBuilder
from reshelve.features.blend import HIDDEN, Blend
from reshelve.features.columns import feature_columns
from reshelve.features.evidence import FEATURES
from reshelve.features.features import write_tables
from reshelve.features.overlap import Rarity
from reshelve.features.tables import Corpus
from reshelve.kinds.search.blend_stage import BlendDocument
from reshelve.lineage.run import Run
from reshelve.model.int8 import ActivationRanges, quantize
from reshelve.model.trained import TrainedModel
from reshelve.modelserver.local_server import running_model_server

DAY = date(2011, 8, 30)
BESIDE: dict[str, object] = {
    "examples.labels": "impressions",
    "examples.features": ("text", "behaviour", "position"),
}
GRAPHS: dict[str, tuple[str, str, dict[str, object]]] = {
    "next_item": ("next_item", "mean", {}),
    "next_item, nothing twice": ("next_item", "cls", {"examples.repeat": False}),
    "pair": ("pair", "cls", {}),
    "pair, with features": ("pair", "cls", BESIDE),
    "pair, towers": ("pair", "mean", {**BESIDE, "model.towers": True, "model.pooling": "mean"}),
    "search": ("search", "mean", {}),
    "search, titles": ("search", "mean", {"model.head": "titles", "model.pooling": "mean"}),
}


def dynamic(model: TrainedModel, ranges: ActivationRanges) -> Precision:
    """Int8 where each batch is rounded in its own range."""
    return Int8(quantize(model, ranges, 0.7, form=Int8Step(mode="dynamic")))


ROUNDED: dict[str, Callable[[TrainedModel, ActivationRanges], Precision]] = {
    **{name: each.usual for name, each in PRECISIONS.items()},
    "int8, dynamic": dynamic,
}


def random_blend(features: int) -> Blend:
    random = np.random.default_rng(3)
    shapes = ((features,), (features,), (features,), (features, HIDDEN), (HIDDEN,), (HIDDEN,))
    return Blend(*(random.uniform(0.1, 1, shape).astype(np.float32) for shape in shapes))


def remember(run: Run, items: int) -> None:
    """The blend stage of a shop where two things were searched, and the encoder was worth its time."""
    stage = run.stage("blend")
    searches = searched(["red bag", "cup"], [0, 1], [DAY.toordinal() - 1] * 2, [1.0, 1.0])
    stage.directory.mkdir(parents=True, exist_ok=True)
    Corpus(searches, [f"title {n}" for n in range(items)], EVERYTHING).tables(DAY).write(stage.directory)
    random_blend(len(FEATURES) + 1).write(stage.directory / "blend.safetensors")
    document = BlendDocument(encoder=True, features=(*FEATURES, "encoder"))
    (stage.directory / "blend.json").write_text(document.model_dump_json())
    stage.commit({})


def with_features(model: TrainedModel, run: Run) -> TrainedModel:
    """The model with random weights for what it reads beside the texts."""
    names = run.ranker.examples.features
    if not names:
        return model
    impressions = counted(["red bag"], ["sku1"], [date(2011, 8, 28)], [None], ["anna"])
    write_tables(run.stage("examples").directory, Rarity.of(["red bag"]), impressions.rates(DAY))
    columns, towers = feature_columns(names), run.ranker.model.towers
    found = dataclasses.asdict(random_blend(len(columns) + towers))
    beside = {
        "beside.mean": found["mean"], "beside.deviation": found["deviation"],
        "beside.linear.weight": found["linear"][np.newaxis], "beside.hidden.weight": found["hidden"].T,
        "beside.hidden.bias": found["bias"], "beside.output.weight": found["output"][np.newaxis],
    }  # fmt: skip
    document = model.document.model_copy(update={"features": columns, "towers": towers})
    return TrainedModel(document, {**model.tensors, **beside})


@pytest.mark.slow
@pytest.mark.parametrize("precision", ROUNDED)
@pytest.mark.parametrize("graph", GRAPHS)
def test_a_graph_that_packaging_makes_only_computes(
    trained_run: Callable[..., Run], tmp_path: Path, graph: str, precision: str
) -> None:
    kind, pooling, values = GRAPHS[graph]
    run = trained_run(kind, pooling, values)
    builder = VersionBuilder(run)
    model = with_features(TrainedModel.load(builder.train), run)
    if kind == "search":
        remember(run, len(builder.catalogue.items))
    rows = example_rows(builder.examples / "train.parquet", 32)
    rounded = ROUNDED[precision](model, calibrate(model, batches(rows)))
    module: Any = builder.module(model, rounded.layers(model))
    assert isinstance(module, RankerModule)
    builder.write(module, tmp_path / "version")
    used = check_operations(tmp_path / "version")
    assert ("_QuantizedMatMul" in used) is precision.startswith("int8")
    if precision == "float32":
        assert_it_refuses_what_is_too_large(tmp_path / "version", module)


def assert_it_refuses_what_is_too_large(version: Path, module: RankerModule) -> None:
    """By every signature: one row more than is allowed, and more text; what is just allowed is answered."""
    signatures = tf.saved_model.load(str(version)).signatures
    assert signatures.keys() == module.signatures.keys()
    for function in signatures.values():
        names = sorted(function.structured_input_signature[1])
        largest = {name: tf.fill([module.most_rows(name)], "red bag") for name in names}
        assert function(**largest)
        for name in names:
            one_more = tf.fill([module.most_rows(name) + 1], "red bag")
            with pytest.raises(
                tf.errors.InvalidArgumentError, match=f"at most .*{module.most_rows(name)} rows of {name}"
            ):
                function(**{**largest, name: one_more})
        long = {name: tf.constant(["x" * (MOST_BYTES // len(names) + 1)]) for name in names}
        with pytest.raises(tf.errors.InvalidArgumentError, match=f"{MOST_BYTES} bytes of text"):
            function(**long)


@pytest.mark.slow
def test_a_server_refuses_more_rows_than_the_ranker_file_allows(
    trained_run: Callable[..., Run], tmp_path: Path
) -> None:
    run = trained_run("next_item", "mean", {"release.max_rows": 40})
    builder = VersionBuilder(run)
    model = TrainedModel.load(builder.train)
    builder.write(builder.module(model, FloatLayers(model)), tmp_path / "version")
    with running_model_server({"recommend": tmp_path / "version"}) as at, RankingClient(at.grpc) as client:
        for signature in ("serving_default", "logits"):
            answer = client.predict(
                "recommend", {"history": ["red bag"] * 40}, version=1, signature=signature
            )
            assert all(len(rows) == 40 for rows in answer.outputs.values())
            with pytest.raises(RequestRefusedError, match="at most 40 rows of history"):
                client.predict("recommend", {"history": ["red bag"] * 41}, version=1, signature=signature)


@pytest.mark.slow
def test_words_that_no_piece_covers_cost_no_more_than_their_number(trained_run: Callable[..., Run]) -> None:
    """40,000 of them in one request, once a table of 40,000 × 40,000."""
    tokenizer = GraphTokenizer(trained_run("pair", "cls").stage("train").directory / "tokenizer.json", 512)
    words = " ".join(["a\U0001f469"] * 3000)
    rows = tokenizer.tokens(tf.fill([12], words))
    assert rows.lengths.numpy().tolist() == [3000] * 12
    assert set(rows.values.numpy()) == {tokenizer.unknown}
