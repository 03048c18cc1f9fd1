"""What the graph of a ranker asks of its encoder's."""

from __future__ import annotations

from typing import Protocol

import tensorflow as tf


class EncoderGraph(Protocol):
    """An encoder with a model's weights, made by (trained model, layers)."""

    def states(
        self, ids: tf.Tensor, lengths: tf.Tensor, types: tf.Tensor | None, only_first: bool
    ) -> tf.Tensor:
        """The last states of all tokens [batch · length, hidden], or of each text's first alone [batch, hidden].

        `ids` int32 [batch, length], `lengths` int32 [batch], `types` int32 [batch, length]: the segments, None for single texts.
        """
