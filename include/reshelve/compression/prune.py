"""Heads and feed-forward neurons that add least are taken out of the matrices.

What a channel adds is E[x²]·‖row of the next product‖² over training examples: exact for the energy of one channel
alone, blind to channels that cancel each other. A head is the sum of its channels.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from reshelve.compression.context import Context
from reshelve.config.compression import Prune
from reshelve.errors import ConfigurationError
from reshelve.export.candidate import Candidate
from reshelve.model.int8 import ActivationRanges
from reshelve.model.trained import SITES, Array, TrainedModel


def prune(step: Prune, before: Candidate, context: Context) -> Candidate:
    """A narrower model. Raises ConfigurationError where a product is no longer whole."""
    model = pruned(before.model, context.ranges(before.model), step.heads, step.feed_forward)
    shape = model.document.architecture
    about = {"heads": shape.num_attention_heads, "feed_forward": shape.intermediate_size}
    return replace(before, model=model, reshaped=True, about=about)


def pruned(model: TrainedModel, ranges: ActivationRanges, heads: float, feed_forward: float) -> TrainedModel:
    """The model without `heads` and `feed_forward` (shares) of each layer's; with 0 and 0 it is equal."""
    shape = model.document.architecture
    kept_heads = max(1, round(shape.num_attention_heads * (1 - heads)))
    kept_inner = max(1, round(shape.intermediate_size * (1 - feed_forward)))
    tensors = dict(model.tensors)
    for number in range(shape.num_hidden_layers):
        layer = model.layer(number)
        for site in SITES:
            if model.parts(f"{layer}.{site}") != [f"{layer}.{site}"]:
                raise ConfigurationError(
                    "compression.steps: prune comes before low_rank", "factors cannot be narrowed"
                )
        energy = _energy(model, ranges, f"{layer}.attention_output").reshape(-1, shape.head_size).sum(1)
        channels = np.arange(len(energy) * shape.head_size).reshape(-1, shape.head_size)
        kept = channels[_largest(energy, kept_heads)].reshape(-1)
        for name in model.names(f"{layer}.qkv"):
            _keep(tensors, name, outputs=kept)
        for name in model.names(f"{layer}.attention_output"):
            _keep(tensors, name, inputs=kept)
        kept = _largest(_energy(model, ranges, f"{layer}.output"), kept_inner)
        for name in model.names(f"{layer}.intermediate"):
            _keep(tensors, name, outputs=kept)
        for name in model.names(f"{layer}.output"):
            _keep(tensors, name, inputs=kept)
    changed = {
        "num_attention_heads": kept_heads,
        "intermediate_size": kept_inner,
        "head_width": shape.head_size,
    }
    document = model.document.model_copy(update={"architecture": shape.model_copy(update=changed)})
    return TrainedModel(document, tensors)


def _energy(model: TrainedModel, ranges: ActivationRanges, site: str) -> Array:
    weight, _ = model.dense(site)
    return ranges.power[site] * np.square(weight).sum(1)


def _largest(values: Array, count: int) -> Array:
    """Places of the `count` largest, in order."""
    return np.sort(np.argsort(-values, kind="stable")[:count])


def _keep(
    tensors: dict[str, Array], name: str, outputs: Array | None = None, inputs: Array | None = None
) -> None:
    """Cut a layer's weight [outputs, inputs] and bias."""
    if outputs is not None:
        tensors[f"{name}.weight"] = np.ascontiguousarray(tensors[f"{name}.weight"][outputs])
        tensors[f"{name}.bias"] = tensors[f"{name}.bias"][outputs]
    if inputs is not None:
        tensors[f"{name}.weight"] = np.ascontiguousarray(tensors[f"{name}.weight"][:, inputs])
