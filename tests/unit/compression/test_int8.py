"""Int8Step products against their float originals."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from reshelve.compression.measure import agreement
from reshelve.config.compression import Int8Step
from reshelve.export.layers import FloatLayers
from reshelve.export.precisions.int8_layers import Int8Layers
from reshelve.model.description import Architecture, ModelForm
from reshelve.model.int8 import ActivationRanges, QuantizedModel, quantize, smoothing_scales
from reshelve.model.trained import TrainedModel

WIDTH, INNER, ITEMS = 32, 64, 50
LAYER = "encoder.encoder.layer.0"


@pytest.fixture(scope="module")
def model() -> TrainedModel:
    random = np.random.default_rng(2)

    def linear(name: str, inputs: int, outputs: int) -> dict[str, np.ndarray]:
        weight = random.normal(0, 0.1, (outputs, inputs)) * random.lognormal(0, 1, (outputs, 1))
        return {
            f"{name}.weight": weight.astype(np.float32),
            f"{name}.bias": random.normal(0, 0.1, outputs).astype(np.float32),
        }

    names = ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"]
    tensors = {
        "encoder.embeddings.word_embeddings.weight": random.normal(0, 1, (100, WIDTH)).astype(np.float32)
    }
    for name in names:
        tensors |= linear(f"{LAYER}.{name}", WIDTH, WIDTH)
    tensors |= linear(f"{LAYER}.intermediate.dense", WIDTH, INNER) | linear(
        f"{LAYER}.output.dense", INNER, WIDTH
    )
    tensors |= linear("hidden", WIDTH, INNER) | linear("items", INNER, ITEMS)
    architecture = Architecture(
        hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=4, intermediate_size=INNER, vocab_size=100,
        max_position_embeddings=16,
    )  # fmt: skip
    return TrainedModel(
        ModelForm(kind="next_item", pooling="mean", max_length=16, architecture=architecture, items=ITEMS),
        tensors,
    )


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    """Activations with two outlier channels, as a transformer's have."""
    rows = np.random.default_rng(3).normal(0, 1, (200, WIDTH)).astype(np.float32)
    rows[:, [3, 17]] *= 15
    return rows


@pytest.fixture(scope="module")
def ranges(model: TrainedModel, rows: np.ndarray) -> ActivationRanges:
    found = ActivationRanges()
    for site in ("qkv", "attention_output", "intermediate"):
        found.see_input(f"{LAYER}.{site}", np.abs(rows).max(0))
    found.see_input("hidden", np.abs(rows).max(0))
    inner, hidden = (rows @ w + b for w, b in (model.dense(f"{LAYER}.intermediate"), model.dense("hidden")))
    found.see_input(f"{LAYER}.output", np.abs(np.maximum(inner, 0)).max(0))
    found.see_between(f"{LAYER}.intermediate", -0.17, float(inner.max()))
    found.see_between("hidden", 0.0, float(hidden.max()))
    return found


def closeness(model: TrainedModel, quantized: QuantizedModel, rows: np.ndarray, call: str) -> float:
    """Correlation of an int8 product's answer with the float one's."""
    calls = {
        "qkv": lambda layers: layers.project(tf.constant(rows), f"{LAYER}.qkv"),
        "attention": lambda layers: layers.project_onto(
            tf.constant(rows), f"{LAYER}.attention_output", tf.zeros([200, WIDTH])
        ),
        "feed_forward": lambda layers: layers.feed_forward(tf.constant(rows), LAYER) - rows,
        "next_item": lambda layers: layers.next_item(tf.constant(rows)),
    }
    answers = [
        tf.function(lambda layers=layers: calls[call](layers), autograph=False)().numpy()
        for layers in (FloatLayers(model), Int8Layers(model, quantized))
    ]
    return float(np.corrcoef(answers[0].ravel(), answers[1].ravel())[0, 1])


@pytest.mark.parametrize("call", ["qkv", "attention", "feed_forward", "next_item"])
def test_int8_products_are_close_to_float(
    model: TrainedModel, ranges: ActivationRanges, rows: np.ndarray, call: str
) -> None:
    assert closeness(model, quantize(model, ranges, 0.6), rows, call) > 0.995


def test_smoothing_pays_where_activations_have_outliers(
    model: TrainedModel, ranges: ActivationRanges, rows: np.ndarray
) -> None:
    calm = rows.copy()
    calm[:, [3, 17]] = 0  # what is left is what rounding in the outliers' steps would lose
    plain, smooth = (closeness(model, quantize(model, ranges, alpha), calm, "qkv") for alpha in (0.0, 0.6))
    assert smooth > plain


def test_smoothing_changes_nothing_in_float(model: TrainedModel, rows: np.ndarray) -> None:
    weight, _ = model.dense(f"{LAYER}.qkv")
    scales = smoothing_scales(np.abs(rows).max(0), weight, 0.7)
    assert np.allclose((rows / scales) @ (weight * scales[:, None]), rows @ weight, rtol=1e-3, atol=1e-3)


def test_word_embeddings_lose_at_most_half_a_step(model: TrainedModel, ranges: ActivationRanges) -> None:
    quantized = quantize(model, ranges, 0.5)
    ids = tf.range(100)
    error = np.abs(Int8Layers(model, quantized).embed(ids).numpy() - FloatLayers(model).embed(ids).numpy())
    assert (error <= quantized["encoder.embeddings.word_embeddings.step"] * 0.5001).all()


@pytest.mark.parametrize("call", ["qkv", "attention", "feed_forward"])
def test_ranges_may_be_each_batchs_own(
    model: TrainedModel, ranges: ActivationRanges, rows: np.ndarray, call: str
) -> None:
    quantized = quantize(model, ranges, 0.6, form=Int8Step(mode="dynamic"))
    assert not quantized.has_range(f"{LAYER}.qkv") and not quantized.has("items")
    assert closeness(model, quantized, rows, call) > 0.995
    # What calibration never saw saturates fixed ranges, and not these.
    assert closeness(model, quantized, rows * 20, call) > 0.995
    assert closeness(model, quantize(model, ranges, 0.6), rows * 20, call) < 0.995


def test_a_range_for_all_columns_rounds_worse(
    model: TrainedModel, ranges: ActivationRanges, rows: np.ndarray
) -> None:
    one = quantize(model, ranges, 0.6, form=Int8Step(per_channel=False, embeddings=False))
    assert not one.has("encoder.embeddings.word_embeddings")
    assert closeness(model, one, rows, "qkv") < closeness(model, quantize(model, ranges, 0.6), rows, "qkv")


def test_item_weights_may_stay_float(model: TrainedModel, ranges: ActivationRanges, rows: np.ndarray) -> None:
    quantized = quantize(model, ranges, 0.5, items=False)
    assert not quantized.has("items") and quantized.has(f"{LAYER}.output")
    assert closeness(model, quantized, rows, "next_item") > 0.999999


def test_a_quantized_model_is_the_same_after_saving(
    model: TrainedModel, ranges: ActivationRanges, tmp_path
) -> None:
    quantized = quantize(model, ranges, 0.5)
    quantized.save(tmp_path / "quantized.safetensors")
    again = QuantizedModel.load(tmp_path / "quantized.safetensors")
    assert all(np.array_equal(again[name], tensor) for name, tensor in quantized.tensors.items())
    assert [path.name for path in tmp_path.iterdir()] == ["quantized.safetensors"]


def test_agreement_is_per_question() -> None:
    before = [np.array([1.0, 2.0, 3.0]), np.array([10.0, 30.0, 20.0]), np.array([5.0])]
    after = [np.array([1.1, 1.9, 3.0]), np.array([1.0, 3.0, 2.0]), np.array([9.0])]
    assert agreement(before, after).spearman == 1.0, (
        "scale between questions means nothing; one item orders nothing"
    )
    assert agreement([before[0]], [before[0][::-1]]).spearman == -1.0


def test_agreement_of_what_orders_nothing_is_unknown_and_of_a_lost_order_0() -> None:
    ordered, flat = np.array([1.0, 2.0, 3.0]), np.array([1.0, 1.0, 1.0])
    single = [np.array([0.1]), np.array([0.4]), np.array([0.3])]
    together = agreement(single, [score * 2 for score in single])
    assert (together.spearman, together.questions) == (1.0, 0), "lists of one item: their scores together"
    for unknown in (agreement([flat], [ordered]), agreement([single[0]], [single[0]]), agreement([], [])):
        assert (unknown.spearman, unknown.pearson) == (None, None)
    lost = agreement([ordered, ordered], [ordered, flat])
    assert (lost.spearman, lost.questions) == (0.5, 2)
