"""A graph's matrix products and word embeddings: what a precision does its own way."""

from __future__ import annotations

from typing import Protocol

import tensorflow as tf

from reshelve.model.trained import Array, TrainedModel


class Layers(Protocol):
    """The graph's matrix products and word embeddings in one precision; rows are [n, width] float32."""

    def embed(self, ids: tf.Tensor) -> tf.Tensor:
        """Word embeddings of int32 `ids` [n]: [n, hidden]."""

    def project(self, rows: tf.Tensor, site: str) -> tf.Tensor:
        """rows · W + b."""

    def project_onto(self, rows: tf.Tensor, site: str, residual: tf.Tensor) -> tf.Tensor:
        """rows · W + b + residual."""

    def feed_forward(self, rows: tf.Tensor, layer: str) -> tf.Tensor:
        """output(gelu(intermediate(rows))) + rows."""

    def next_item(self, pooled: tf.Tensor) -> tf.Tensor:
        """items(relu(hidden(pooled))): [batch, catalogue]."""


def held(array: Array) -> tf.Tensor:
    """A weight as a constant beside the function that is being traced, not inside it.

    Functions capture it, so that a version's file and every copy TensorFlow makes of a function hold it
    once or not at all; a server's optimizer still sees a constant once it has inlined them.
    """
    with tf.init_scope():
        return tf.constant(array)


class FloatLayers:
    """Float32: weights are constants, so that the runtime packs them once."""

    def __init__(self, model: TrainedModel) -> None:
        self.model = model

    def embed(self, ids: tf.Tensor) -> tf.Tensor:
        return tf.gather(held(self.model[f"{self.model.encoder.words}.weight"]), ids)

    def dense(self, rows: tf.Tensor, part: str) -> tf.Tensor:
        """One product of those that a site is made of."""
        weight, bias = self.model.dense(part)
        return tf.nn.bias_add(tf.matmul(rows, held(weight)), held(bias))

    def project(self, rows: tf.Tensor, site: str) -> tf.Tensor:
        for part in self.model.parts(site):
            rows = self.dense(rows, part)
        return rows

    def project_onto(self, rows: tf.Tensor, site: str, residual: tf.Tensor) -> tf.Tensor:
        return self.project(rows, site) + residual

    def feed_forward(self, rows: tf.Tensor, layer: str) -> tf.Tensor:
        return self.project_onto(gelu(self.project(rows, f"{layer}.intermediate")), f"{layer}.output", rows)

    def next_item(self, pooled: tf.Tensor) -> tf.Tensor:
        return self.project(tf.nn.relu(self.project(pooled, "hidden")), "items")


def gelu(rows: tf.Tensor) -> tf.Tensor:
    """The exact GELU, written the one way the optimizer knows how to fuse."""
    return rows * (0.5 * (1.0 + tf.math.erf(rows * 0.70710678)))
