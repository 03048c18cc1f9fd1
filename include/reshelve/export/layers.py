"""A graph's matrix products and word embeddings: what a precision does its own way.

Weights are constants, which the runtime packs once, but for those of the product over the catalogue: these are variables, so
that a graph stays the size it is, however many items there are.
"""

from __future__ import annotations

from typing import Any, Protocol

import tensorflow as tf

from reshelve.features.graph_tables import numbers
from reshelve.model.trained import Array, TrainedModel


class Layers(Protocol):
    """The graph's matrix products and word embeddings in one precision; rows are [n, width] float32."""

    def weight(self, name: str, array: Array) -> tf.Tensor:
        """`array`, which is called `name`, for the function that is being traced."""

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


def grows(name: str) -> bool:
    """Whether a tensor of that name is as large as the catalogue."""
    return name.startswith("items.")


class FloatLayers(tf.Module):
    """Float32. A module that traces a graph with these has to hold them: their variables are saved with it."""

    def __init__(self, model: TrainedModel) -> None:
        super().__init__()
        self.model = model
        self._variables: dict[str, tf.Variable] = {}
        self._given: list[tuple[tf.Variable, tf.Tensor, Array]] = []

    def weight(self, name: str, array: Array) -> tf.Tensor:
        """`array`, which is called `name`, for the function that is being traced."""
        if not grows(name):
            return held(array)
        if name not in self._variables:
            with tf.init_scope():
                self._variables[name] = numbers(array) if tf.executing_eagerly() else self._later(array)
        return self._variables[name].read_value()

    def _later(self, array: Array) -> tf.Variable:
        """In a graph of TensorFlow 1 a first value would be a constant: it is given to the session instead."""
        value = tf.compat.v1.placeholder(tf.as_dtype(array.dtype), array.shape)
        variable = tf.Variable(value, trainable=False)
        self._given.append((variable, value, array))
        return variable

    def fill(self, session: Any) -> None:
        """Give the variables of a graph of TensorFlow 1 their values."""
        for variable, value, array in self._given:
            session.run(variable.initializer, {value: array})
        self._given.clear()

    def embed(self, ids: tf.Tensor) -> tf.Tensor:
        return tf.gather(held(self.model[f"{self.model.encoder.words}.weight"]), ids)

    def dense(self, rows: tf.Tensor, part: str) -> tf.Tensor:
        """One product of those that a site is made of."""
        weight, bias = self.model.dense(part)
        product = tf.matmul(rows, self.weight(f"{part}.weight", weight))
        return tf.nn.bias_add(product, self.weight(f"{part}.bias", bias))

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
