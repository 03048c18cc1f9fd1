"""Activation ranges, seen by running the float graph over training examples."""

from __future__ import annotations

from collections.abc import Iterable

import tensorflow as tf

from reshelve.export.graph import RankerGraph
from reshelve.export.layers import FloatLayers, gelu
from reshelve.export.tokenizer import TokenBatch
from reshelve.model.int8 import ActivationRanges
from reshelve.model.trained import TrainedModel


class _WatchedLayers(FloatLayers):
    """Float layers that note what goes through them while they are traced."""

    def __init__(self, model: TrainedModel) -> None:
        super().__init__(model)
        self.forget()

    def forget(self) -> None:
        """Begin another graph."""
        self.inputs: dict[str, tf.Tensor] = {}
        self.power: dict[str, tf.Tensor] = {}
        self.between: dict[str, tuple[tf.Tensor, tf.Tensor]] = {}

    def dense(self, rows: tf.Tensor, part: str) -> tf.Tensor:
        largest, squares = tf.reduce_max(tf.abs(rows), axis=0), tf.reduce_sum(tf.square(rows), axis=0)
        if part in self.inputs:  # two towers go through one site
            largest, squares = tf.maximum(self.inputs[part], largest), self.power[part] + squares
        self.inputs[part], self.power[part] = largest, squares
        return super().dense(rows, part)

    def feed_forward(self, rows: tf.Tensor, layer: str) -> tf.Tensor:
        middle = self._note(f"{layer}.intermediate", gelu(self.project(rows, f"{layer}.intermediate")))
        return self.project_onto(middle, f"{layer}.output", rows)

    def next_item(self, pooled: tf.Tensor) -> tf.Tensor:
        return self.project(self._note("hidden", tf.nn.relu(self.project(pooled, "hidden"))), "items")

    def _note(self, site: str, rows: tf.Tensor) -> tf.Tensor:
        low, high = tf.reduce_min(rows), tf.reduce_max(rows)
        if site in self.between:
            low, high = tf.minimum(low, self.between[site][0]), tf.maximum(high, self.between[site][1])
        self.between[site] = (low, high)
        return rows


def calibrate(model: TrainedModel, batches: Iterable[TokenBatch]) -> ActivationRanges:
    """The ranges over `batches`. Padding is seen too, as it is when serving; it stays inside the ranges of words."""
    ids = tf.TensorSpec([None, None], tf.int32)
    layers = _WatchedLayers(model)  # held for as long as the function that reads its variables

    @tf.function(input_signature=[ids, tf.TensorSpec([None], tf.int32), ids], autograph=False)
    def watch(ids: tf.Tensor, lengths: tf.Tensor, types: tf.Tensor) -> tuple:
        layers.forget()  # it may be traced more than once
        RankerGraph(model, layers).logits(ids, lengths, types)
        return dict(layers.inputs), dict(layers.power), dict(layers.between)

    ranges = ActivationRanges()
    for batch in batches:
        types = tf.zeros_like(batch.ids) if batch.types is None else batch.types
        inputs, power, between = watch(batch.ids, batch.lengths, types)
        for site, largest in inputs.items():
            ranges.see_input(site, largest.numpy())
        for site, squares in power.items():
            ranges.see_power(site, squares.numpy())
        for site, (low, high) in between.items():
            ranges.see_between(site, float(low), float(high))
    return ranges
