"""The ranker as a TensorFlow graph: its encoder, one pooled vector for each text, and the head of its kind."""

from __future__ import annotations

import tensorflow as tf

from reshelve.export.encoders.base import EncoderGraph
from reshelve.export.layers import Layers, held
from reshelve.export.titles import TitleGraph
from reshelve.model.trained import TrainedModel


class RankerGraph:
    """Token ids → logits: [batch] for pairs, [batch, catalogue] over a catalogue. `titles`: where these are read."""

    def __init__(self, model: TrainedModel, layers: Layers) -> None:
        self.model = model
        self.layers = layers
        self.encoder: EncoderGraph = model.encoder.build_graph(model, layers)
        self.titles = TitleGraph(model, layers) if model.document.vector_size is not None else None

    def logits(self, ids: tf.Tensor, lengths: tf.Tensor, types: tf.Tensor | None) -> tf.Tensor:
        """`ids` int32 [batch, length], `lengths` int32 [batch], `types` int32 [batch, length] or None.

        Of towers it is the cosine of the two texts, which the features' network reads as one more.
        """
        if self.model.document.towers:
            return self._cosine(ids, lengths, types)
        pooled = self.pooled(ids, lengths, types)
        if self.titles is not None:
            return self.titles.logits(self.titles.vector(pooled)) + self.layers.weight(
                "items.bias", self.model["items.bias"]
            )
        if self.model.document.items is not None:
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
        cls_only = self.model.document.pooling == "cls"
        rows = self.encoder.states(ids, lengths, types, cls_only)
        if cls_only:
            return rows
        shape = tf.shape(ids)
        present = tf.sequence_mask(lengths, shape[1], dtype=tf.float32)
        states = tf.reshape(rows, [shape[0], shape[1], self.model.document.architecture.hidden_size])
        total = tf.squeeze(tf.matmul(present[:, tf.newaxis, :], states), 1)
        return total / tf.cast(tf.maximum(lengths, 1), tf.float32)[:, tf.newaxis]
