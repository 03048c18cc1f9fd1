"""BERT with stock operations, batch and length dynamic.

What makes it fast: matrix products over [batch · length, width]; query, key and value in one product; GELU and attention's
scores in the forms that the optimizer fuses; and where only the first token's state is asked for, the last layer's query and
feed-forward for it alone, which is exact.
"""

from __future__ import annotations

import math

import tensorflow as tf

from reshelve.export.layers import Layers
from reshelve.model.trained import Array, TrainedModel

_EMBEDDINGS = "encoder.embeddings"


class BertGraph:
    """The encoder of a trained model: an `EncoderGraph`."""

    def __init__(self, model: TrainedModel, layers: Layers) -> None:
        self.model = model
        self.layers = layers
        self.shape = model.document.architecture

    def states(
        self, ids: tf.Tensor, lengths: tf.Tensor, types: tf.Tensor | None, only_first: bool
    ) -> tf.Tensor:
        """The last states [batch · length, hidden], or of each text's first token alone [batch, hidden]."""
        shape = tf.shape(ids)
        batch, length = shape[0], shape[1]
        rows = self._embeddings(ids, types, length)
        present = tf.sequence_mask(lengths, length, dtype=tf.float32)
        bias = tf.reshape((present - 1.0) * 1e9, [batch, 1, 1, length])
        alone = tf.equal(batch, 1) & tf.reduce_all(tf.equal(lengths, length))
        for number in range(self.shape.num_hidden_layers):
            last = number == self.shape.num_hidden_layers - 1
            rows = self._layer(rows, self.model.layer(number), bias, alone, only_first and last)
        return rows

    def _embeddings(self, ids: tf.Tensor, types: tf.Tensor | None, length: tf.Tensor) -> tf.Tensor:
        width = self.shape.hidden_size
        words = tf.reshape(self.layers.embed(tf.reshape(ids, [-1])), [-1, length, width])
        states = words + tf.constant(self._positions())[:length]
        if types is not None and self.model.encoder.token_types:
            states += tf.cast(types, tf.float32)[:, :, tf.newaxis] * tf.constant(self._second_type())
        return self._normalize(tf.reshape(states, [-1, width]), f"{_EMBEDDINGS}.LayerNorm")

    def _positions(self) -> Array:
        """Position embeddings with token type 0 added: [max_length, hidden]."""
        first = self.model.encoder.first_position(self.shape)
        table = self.model[f"{_EMBEDDINGS}.position_embeddings.weight"]
        types = self.model[f"{_EMBEDDINGS}.token_type_embeddings.weight"]
        return table[first : first + self.model.document.max_length] + types[0]

    def _second_type(self) -> Array:
        """What token type 1 adds beyond type 0: [hidden]."""
        types = self.model[f"{_EMBEDDINGS}.token_type_embeddings.weight"]
        return types[1] - types[0]

    def _layer(
        self,
        rows: tf.Tensor,
        layer: str,
        bias: tf.Tensor,
        alone: tf.Tensor,
        only_first: bool,
    ) -> tf.Tensor:
        batch, length = tf.shape(bias)[0], tf.shape(bias)[3]
        heads, size, width = self.shape.num_attention_heads, self.shape.head_size, self.shape.hidden_size
        qkv = tf.reshape(self.layers.project(rows, f"{layer}.qkv"), [batch, length, 3, heads, size])
        qkv = _turned(qkv, [2, 0, 3, 1, 4])
        query = qkv[0, :, :, :1] if only_first else qkv[0]
        context = _attend(query, qkv[1], qkv[2], bias, alone)
        context = tf.reshape(_turned(context, [0, 2, 1, 3]), [-1, heads * size])
        if only_first:
            rows = tf.reshape(rows, [batch, length, width])[:, 0]
        attended = self.layers.project_onto(context, f"{layer}.attention_output", rows)
        attended = self._normalize(attended, f"{layer}.attention.output.LayerNorm")
        return self._normalize(self.layers.feed_forward(attended, layer), f"{layer}.output.LayerNorm")

    def _normalize(self, rows: tf.Tensor, name: str) -> tf.Tensor:
        return layer_norm(
            rows, self.model[f"{name}.weight"], self.model[f"{name}.bias"], self.shape.layer_norm_eps
        )


def _turned(values: tf.Tensor, order: list[int]) -> tf.Tensor:
    """A transpose, of the bits as integers: oneDNN's own, for floats alone, costs more to begin."""
    return tf.bitcast(tf.transpose(tf.bitcast(values, tf.int32), order), tf.float32)


def _attend(
    query: tf.Tensor, key: tf.Tensor, value: tf.Tensor, bias: tf.Tensor, alone: tf.Tensor
) -> tf.Tensor:
    """softmax(query · keyᵀ / √size + bias) · value, all [batch, heads, tokens, size]; `bias` hides padding.

    `alone`: there is one text, and no padding. Its products are so small that oneDNN, which takes over `matmul` and
    `softmax`, would spend most of its time to begin.
    """
    scale = tf.constant(1 / math.sqrt(query.shape[-1]), tf.float32)

    def one() -> tf.Tensor:
        scores = _product(query * scale, key, transpose_b=True)
        raised = tf.exp(scores - tf.reduce_max(scores, axis=-1, keepdims=True))
        return _product(raised / tf.reduce_sum(raised, axis=-1, keepdims=True), value)

    def many() -> tf.Tensor:
        return tf.matmul(tf.nn.softmax(tf.matmul(query, key, transpose_b=True) * scale + bias), value)

    return tf.cond(alone, one, many)


def _product(one: tf.Tensor, other: tf.Tensor, transpose_b: bool = False) -> tf.Tensor:
    """A batch matrix product by the operation that oneDNN leaves alone."""
    return tf.raw_ops.BatchMatMulV3(x=one, y=other, Tout=tf.float32, adj_x=False, adj_y=transpose_b)


def layer_norm(rows: tf.Tensor, scale: Array, offset: Array, epsilon: float) -> tf.Tensor:
    """Layer normalisation of the last axis."""
    mean = tf.reduce_mean(rows, axis=-1, keepdims=True)
    centred = rows - mean
    variance = tf.reduce_mean(tf.square(centred), axis=-1, keepdims=True)
    return centred * tf.math.rsqrt(variance + epsilon) * tf.constant(scale) + tf.constant(offset)
