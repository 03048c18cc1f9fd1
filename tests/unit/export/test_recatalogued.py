"""A model's items in another catalogue."""

from __future__ import annotations

import numpy as np

from reshelve.model.description import Architecture, ModelForm
from reshelve.model.int8 import QuantizedModel
from reshelve.model.recatalogued import quantized_with_items, with_items
from reshelve.model.trained import TrainedModel

WERE = np.array([2, -1, 0])
WEIGHT = np.array([[1.0, -2.0], [3.0, 0.5], [-4.0, 3.0]], np.float32)  # [items, inputs]
BIAS = np.array([0.5, -1.0, 2.0], np.float32)


def model(**tensors: np.ndarray) -> TrainedModel:
    sizes = {
        "hidden_size": 2,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 2,
        "vocab_size": 9,
    }
    form = ModelForm(kind="search", pooling="mean", max_length=8, architecture=Architecture(**sizes), items=3)
    return TrainedModel(form, {"items.bias": BIAS, "encoder.x": np.ones(2, np.float32), **tensors})


def test_items_take_their_rows_along_and_a_new_one_gets_the_mean() -> None:
    found = with_items(model(**{"items.weight": WEIGHT}), WERE, None)
    assert found.document.items == 3 and found["encoder.x"].tolist() == [1, 1]
    np.testing.assert_allclose(found["items.weight"], [WEIGHT[2], [0.0, 0.5], WEIGHT[0]])
    np.testing.assert_allclose(found["items.bias"], [2.0, -1.0, 0.5])


def test_vectors_of_titles_are_given() -> None:
    vectors = np.eye(3, dtype=np.float32)
    found = with_items(model(**{"items.vectors": vectors[::-1].copy()}), WERE, vectors)
    assert found["items.vectors"] is vectors and "items.weight" not in found.tensors


def test_rounded_rows_stay_as_they_were_rounded() -> None:
    reach = np.abs(WEIGHT).max(axis=1)
    rounded = np.rint(WEIGHT / reach[:, None] * 127).astype(np.int8).T
    before = QuantizedModel(
        {"items.weight": rounded, "items.range": reach, "items.bias": BIAS, "words": BIAS}
    )
    found = quantized_with_items(before, WERE)
    np.testing.assert_array_equal(found["items.weight"][:, [0, 2]], rounded[:, [2, 0]])
    assert found["items.weight"].dtype == np.int8 and found["items.bias"].tolist() == [2.0, -1.0, 0.5]
    read = found["items.weight"].T * found["items.range"][:, None] / 127
    np.testing.assert_allclose(read[1], WEIGHT.mean(axis=0), atol=0.02)
    assert quantized_with_items(QuantizedModel({"words": BIAS}), WERE).tensors.keys() == {"words"}


def test_the_same_catalogue_changes_nothing() -> None:
    before = model(**{"items.weight": WEIGHT})
    after = with_items(before, np.arange(3), None)
    for name, tensor in before.tensors.items():
        np.testing.assert_array_equal(after[name], tensor)
