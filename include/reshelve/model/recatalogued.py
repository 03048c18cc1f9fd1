"""A trained model's items in another catalogue: each takes its numbers along, a new one gets those that say the least."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from reshelve.model.int8 import QuantizedModel
from reshelve.model.trained import Array, TrainedModel

_WEIGHT, _BIAS, _VECTORS = "items.weight", "items.bias", "items.vectors"
_RANGE, _LARGEST = "items.range", 127


def with_items(model: TrainedModel, were: Array, vectors: Array | None) -> TrainedModel:
    """`were` int [C]: each item's place before, -1 of a new one; `vectors` [C, D] of their titles, where items are scored by them.

    A new item is as popular as the least popular one. Of a softmax it gets the mean row: what the model says of an item that it
    knows nothing of.
    """
    tensors, new = dict(model.tensors), were < 0
    tensors[_BIAS] = np.where(new, tensors[_BIAS].min(), tensors[_BIAS][were]).astype(np.float32)
    if vectors is not None:
        tensors[_VECTORS] = vectors
    else:
        tensors[_WEIGHT] = _rows(tensors[_WEIGHT], were)
    return TrainedModel(model.document.model_copy(update={"items": len(were)}), tensors)


def quantized_with_items(quantized: QuantizedModel, were: Array) -> QuantizedModel:
    """The same of rounded tensors, whose products have their outputs in columns."""
    if not quantized.has("items"):
        return quantized
    tensors = dict(quantized.tensors)
    rounded, reach = tensors[_WEIGHT].T, tensors[_RANGE]
    kept, mean = rounded[were], (rounded * (reach / _LARGEST)[:, None]).mean(axis=0)
    most = max(float(np.abs(mean).max()), 1e-12)
    new = were < 0
    kept[new] = np.rint(mean / most * _LARGEST)
    tensors[_WEIGHT] = np.ascontiguousarray(kept.T)
    tensors[_RANGE] = np.where(new, most, reach[were]).astype(np.float32)
    bias = tensors[_BIAS]
    tensors[_BIAS] = np.where(new, bias.min(), bias[were]).astype(np.float32)
    return replace(quantized, tensors=tensors)


def _rows(weight: Array, were: Array) -> Array:
    found = weight[were]
    found[were < 0] = weight.mean(axis=0)
    return np.ascontiguousarray(found)
