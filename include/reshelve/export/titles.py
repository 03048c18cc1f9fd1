"""The head of a dual encoder as a graph: a query's vector, and its likeness to the vectors of titles."""

from __future__ import annotations

import tensorflow as tf

from reshelve.export.layers import Layers, held
from reshelve.model.description import MOST_SCALE
from reshelve.model.trained import TrainedModel


class TitleGraph:
    """What `training.title_head.TitleHead` computes, without the popularity. Float32, whatever the encoder's precision is."""

    def __init__(self, model: TrainedModel, layers: Layers) -> None:
        self._model, self._layers = model, layers
        self._projection = held(model["items.projection.weight"])
        self._scale = tf.minimum(tf.exp(held(model["items.log_scale"])), MOST_SCALE)

    @property
    def vectors(self) -> tf.Tensor:
        """[C, D], for the function that is being traced."""
        return self._layers.weight("items.vectors", self._model["items.vectors"])

    def vector(self, pooled: tf.Tensor) -> tf.Tensor:
        """Pooled states [B, H] → [B, D] of length 1."""
        return tf.nn.l2_normalize(tf.matmul(pooled, self._projection, transpose_b=True), axis=1)

    def cut(self, vector: tf.Tensor) -> tf.Tensor:
        """Query vectors [B, D] → their first `index_size` numbers, of length 1: what a search engine's index has of titles."""
        size = self._model.document.index_size
        return vector if size is None else tf.nn.l2_normalize(vector[:, :size], axis=1)

    def logits(self, vector: tf.Tensor) -> tf.Tensor:
        """Query vectors [B, D] → scale · cosine with every title [B, C]."""
        return self._scale * tf.matmul(vector, self.vectors, transpose_b=True)

    def title_logits(self, vector: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
        """Query vectors [B, D] and places of candidates int32 [B, N] → what `logits` has there [B, N]."""
        return self._scale * tf.einsum("bd,bnd->bn", vector, tf.gather(self.vectors, places))
