"""The ranker as a TensorFlow graph that mirrors BERT with stock operations, batch and length dynamic.

What makes it fast: matrix products over [batch · length, width]; query, key and value in one product;
GELU and attention's scores in the forms that the optimizer fuses; and with CLS pooling the last layer's
query and feed-forward for the first token only, which is exact.
"""

from __future__ import annotations

import math
from typing import Protocol

import tensorflow as tf

from reshelve.packaging.trained import Array, TrainedModel


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
        return tf.gather(held(self.model["encoder.embeddings.word_embeddings.weight"]), ids)

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


class RankerGraph:
    """Token ids → logits: [batch] for pairs, [batch, catalogue] for the next item."""

    def __init__(self, model: TrainedModel, layers: Layers) -> None:
        self.model = model
        self.layers = layers
        self.shape = model.document.architecture

    def logits(self, ids: tf.Tensor, lengths: tf.Tensor, types: tf.Tensor | None) -> tf.Tensor:
        """`ids` int32 [batch, length], `lengths` int32 [batch], `types` int32 [batch, length] or None.

        Of towers it is the cosine of the two texts, which the features' network reads as one more.
        """
        if self.model.document.towers:
            return self._cosine(ids, lengths, types)
        pooled = self.pooled(ids, lengths, types)
        if self.model.document.kind.over_catalogue:
            return self.layers.next_item(pooled)
        weight, bias = self.model.dense("head")
        return tf.squeeze(tf.matmul(pooled, held(weight)) + held(bias), 1)

    def _cosine(self, ids: tf.Tensor, lengths: tf.Tensor, types: tf.Tensor) -> tf.Tensor:
        """[CLS] left [SEP] right [SEP] → cosine [batch] of the vectors of [CLS] left [SEP] and of [CLS] right [SEP].

        Where every row has the same left text, as one query with its candidates has, it is read once.
        """
        of_right = tf.reduce_sum(types, axis=1)
        of_left = lengths - of_right
        place = of_left[:, tf.newaxis] + tf.range(tf.reduce_max(of_right))
        right = tf.gather(ids, tf.minimum(place, tf.shape(ids)[1] - 1), batch_dims=1)
        left = ids[:, : tf.reduce_max(of_left)]
        one_text = tf.reduce_all(of_left == of_left[:1]) & tf.reduce_all(left == left[:1])
        texts = tf.where(one_text, tf.minimum(tf.shape(ids)[0], 1), tf.shape(ids)[0])
        one, other = (
            tf.nn.l2_normalize(self.pooled(text, length, None), axis=1)
            for text, length in (
                (left[:texts], of_left[:texts]),
                (tf.concat([ids[:, :1], right], axis=1), of_right + 1),
            )
        )
        return tf.reduce_sum(one * other, axis=1)

    def pooled(self, ids: tf.Tensor, lengths: tf.Tensor, types: tf.Tensor | None) -> tf.Tensor:
        """One vector per text: [batch, hidden]."""
        shape = tf.shape(ids)
        batch, length, width = shape[0], shape[1], self.shape.hidden_size
        rows = self._embeddings(ids, types, length)
        present = tf.sequence_mask(lengths, length, dtype=tf.float32)
        bias = tf.reshape((present - 1.0) * 1e9, [batch, 1, 1, length])
        alone = tf.equal(batch, 1) & tf.reduce_all(tf.equal(lengths, length))
        cls_only = self.model.document.pooling == "cls"
        for number in range(self.shape.num_hidden_layers):
            only_first = cls_only and number == self.shape.num_hidden_layers - 1
            rows = self._layer(rows, f"encoder.encoder.layer.{number}", bias, alone, only_first)
        if cls_only:
            return rows
        states = tf.reshape(rows, [batch, length, width])
        total = tf.squeeze(tf.matmul(present[:, tf.newaxis, :], states), 1)
        return total / tf.cast(tf.maximum(lengths, 1), tf.float32)[:, tf.newaxis]

    def _embeddings(self, ids: tf.Tensor, types: tf.Tensor | None, length: tf.Tensor) -> tf.Tensor:
        width = self.shape.hidden_size
        words = tf.reshape(self.layers.embed(tf.reshape(ids, [-1])), [-1, length, width])
        states = words + tf.constant(self.model.positions())[:length]
        if types is not None:
            states += tf.cast(types, tf.float32)[:, :, tf.newaxis] * tf.constant(self.model.second_type())
        return self._normalize(tf.reshape(states, [-1, width]), "encoder.embeddings.LayerNorm")

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
