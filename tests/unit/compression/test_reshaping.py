"""Pruned, factorised and thinned models against the one they come from, through the real graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from reshelve.compression.calibration import calibrate
from reshelve.compression.distil import kept_layers, thinned
from reshelve.compression.low_rank import factorised, split
from reshelve.compression.measure import GraphScorer
from reshelve.compression.prune import pruned
from reshelve.export.batches import padded
from reshelve.export.layers import FloatLayers, Layers
from reshelve.export.precisions.bf16 import Bf16Layers
from reshelve.export.precisions.int8_layers import Int8Layers
from reshelve.export.tokenizer import TokenBatch
from reshelve.model.description import Architecture, ModelForm
from reshelve.model.int8 import ActivationRanges, quantize
from reshelve.model.trained import TrainedModel

pytestmark = pytest.mark.slow  # computes in TensorFlow

LAYERS, WIDTH, INNER, HEADS = 3, 32, 64, 4
PRODUCTS = ("qkv", "attention_output", "intermediate", "output")


def rows_of(count: int) -> TokenBatch:
    random = np.random.default_rng(4)
    rows = [random.integers(1, 100, 4 + n % 8).tolist() for n in range(count)]
    return padded([(row, [0] * (len(row) // 2) + [1] * (len(row) - len(row) // 2)) for row in rows])


@pytest.fixture(scope="module")
def model() -> TrainedModel:
    from transformers import BertConfig, BertModel

    shape = Architecture(
        hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS, intermediate_size=INNER, vocab_size=100,
        max_position_embeddings=16,
    )  # fmt: skip
    random = np.random.default_rng(3)
    encoder = BertModel(
        BertConfig(**shape.model_dump(exclude={"head_width", "pad_token_id"})), add_pooling_layer=False
    ).state_dict()
    tensors = {
        f"encoder.{name}": random.normal(0, 0.25, t.shape).astype(np.float32) for name, t in encoder.items()
    }
    for name in [name for name in tensors if name.endswith("LayerNorm.weight")]:
        tensors[name] = random.uniform(0.7, 1.3, WIDTH).astype(np.float32)
    tensors |= {
        "head.weight": random.normal(0, 0.5, (1, WIDTH)).astype("f"),
        "head.bias": np.zeros(1, "f"),
    }
    return TrainedModel(ModelForm(kind="pair", pooling="cls", max_length=16, architecture=shape), tensors)


@pytest.fixture(scope="module")
def ranges(model: TrainedModel) -> ActivationRanges:
    return calibrate(model, [rows_of(64)])


def scored(model: TrainedModel, layers: Layers) -> np.ndarray:
    with GraphScorer(model, layers) as score:
        return score(rows_of(40))


def answer(model: TrainedModel) -> np.ndarray:
    return scored(model, FloatLayers(model))


def likeness(model: TrainedModel, other: TrainedModel) -> float:
    return float(np.corrcoef(answer(model), answer(other))[0, 1])


def test_a_model_with_nothing_pruned_is_equal(model: TrainedModel, ranges: ActivationRanges) -> None:
    whole = pruned(model, ranges, 0.0, 0.0)
    assert all(np.array_equal(whole[name], tensor) for name, tensor in model.tensors.items())
    np.testing.assert_array_equal(answer(whole), answer(model))


def test_what_is_pruned_is_out_of_the_matrices(
    model: TrainedModel, ranges: ActivationRanges, tmp_path
) -> None:
    narrow = pruned(model, ranges, 0.5, 0.25)
    layer = "encoder.encoder.layer.1"
    assert narrow[f"{layer}.attention.self.query.weight"].shape == (16, WIDTH)
    assert narrow[f"{layer}.attention.output.dense.weight"].shape == (WIDTH, 16)
    assert narrow[f"{layer}.intermediate.dense.weight"].shape == (48, WIDTH)
    assert narrow[f"{layer}.output.dense.weight"].shape == (WIDTH, 48)
    assert narrow.document.architecture.head_size == WIDTH // HEADS, "the heads that stay are as wide"
    narrow.save(tmp_path)
    np.testing.assert_array_equal(answer(TrainedModel.load(tmp_path)), answer(narrow))


def test_what_adds_nothing_is_pruned_first(model: TrainedModel) -> None:
    tensors = dict(model.tensors)
    for number in range(LAYERS):
        layer = f"encoder.encoder.layer.{number}"
        idle = tensors[f"{layer}.output.dense.weight"].copy()
        idle[:, ::2] = 0  # every other neuron is read by nobody
        mixed = tensors[f"{layer}.attention.output.dense.weight"].copy()
        mixed[:, 8:16] = 0  # nor is the second head
        tensors |= {
            f"{layer}.output.dense.weight": idle,
            f"{layer}.attention.output.dense.weight": mixed,
        }
    idle_model = TrainedModel(model.document, tensors)
    narrow = pruned(idle_model, calibrate(idle_model, [rows_of(64)]), 0.25, 0.5)
    np.testing.assert_allclose(answer(narrow), answer(idle_model), atol=1e-5)


def test_factors_of_full_rank_compute_the_same(model: TrainedModel, ranges: ActivationRanges) -> None:
    whole = factorised(model, ranges, 1.0, PRODUCTS)
    assert "encoder.encoder.layer.0.qkv.down" in whole.sites() and len(whole.sites()) == 8 * LAYERS
    np.testing.assert_allclose(answer(whole), answer(model), atol=1e-4)


def test_factors_are_the_best_of_their_rank_for_the_activations() -> None:
    random = np.random.default_rng(7)
    scale = random.lognormal(0, 2, 24)  # channels of very different size, as a transformer's
    inputs, weight = random.normal(0, scale, (500, 24)), random.normal(0, 1, (24, 30))

    def error(power: np.ndarray) -> float:
        down, up = split(weight.astype("f"), power.astype("f"), 8)
        assert down.shape == (24, 8) and up.shape == (8, 30)
        return float(np.square(inputs @ down @ up - inputs @ weight).sum())

    assert error(np.square(inputs).sum(0)) < 0.8 * error(np.ones(24))


@pytest.mark.skipif(
    "vnni" not in Path("/proc/cpuinfo").read_text(),
    reason="without VNNI oneDNN adds pairs of int8 products in 16 bits, which saturate (decision 0042)",
)
@pytest.mark.parametrize("products", [("intermediate",), ("output",), PRODUCTS], ids=len)
def test_factors_go_into_int8(
    model: TrainedModel, ranges: ActivationRanges, products: tuple[str, ...]
) -> None:
    thin = factorised(model, ranges, 0.75, products)
    quantized = quantize(thin, calibrate(thin, [rows_of(64)]), 0.5)
    found = scored(thin, Int8Layers(thin, quantized))
    assert np.corrcoef(found, answer(thin))[0, 1] > 0.95


def test_bfloat16_halves_the_weights_and_ranks_alike(model: TrainedModel) -> None:
    found = scored(model, Bf16Layers(model))
    assert np.corrcoef(found, answer(model))[0, 1] > 0.98 and not np.array_equal(found, answer(model))
    graph = tf.Graph()
    with graph.as_default():
        Bf16Layers(model).project(tf.zeros([1, WIDTH]), "encoder.encoder.layer.0.qkv")
    kinds = {node.attr["dtype"].type for node in graph.as_graph_def().node if node.op == "Const"}
    assert tf.bfloat16.as_datatype_enum in kinds


@pytest.mark.parametrize(
    ("count", "layers", "kept"), [(6, 3, [0, 2, 5]), (6, 2, [0, 5]), (6, 1, [5]), (3, 3, [0, 1, 2])]
)
def test_a_copys_layers_are_spread_over_the_models(count: int, layers: int, kept: list[int]) -> None:
    assert kept_layers(count, layers) == kept


def test_a_copy_starts_from_the_models_layers(model: TrainedModel) -> None:
    thin = thinned(model, 2)
    name = "encoder.encoder.layer.{}.output.dense.weight"
    assert np.array_equal(thin[name.format(1)], model[name.format(2)])
    assert name.format(2) not in thin.tensors and thin.document.architecture.num_hidden_layers == 2
    assert np.isfinite(answer(thin)).all()
