"""A table read from its other side: for each item its keys, of which those that are asked add up.

What it costs follows the candidates, not how many items a frequent key leads to. Nearly all of an item's keys are asked by
nobody: they are told apart by a table of the asked ones' last bits, and the few that are left are looked for.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from reshelve.features.graph_tables import numbers
from reshelve.features.postings import Postings, find

CHUNK = 16  # keys that are read together; each item's are filled up with keys that nobody asks
_MARKS = 2**16
_BLOCK = 2**16  # items at a time, when the table is laid out: bounds memory


class RowSums(tf.Module):
    """One `Postings` of item → keys in TensorFlow."""

    def __init__(self, of_items: Postings) -> None:
        super().__init__()
        self.width = of_items.width
        lengths = np.diff(of_items.starts)
        self.first = numbers(np.concatenate([[0], np.cumsum(-(-lengths // CHUNK))]).astype(np.int32))
        self.columns = numbers(_chunked(of_items.starts, of_items.columns, of_items.width))
        self.weighted = of_items.weights.shape[1] > 0
        if self.weighted:
            columns = of_items.weights.T
            by_weight = [_chunked(of_items.starts, column, 0).ravel() for column in columns]
            self.weights = numbers(np.stack(by_weight, axis=1))

    def at(self, items: tf.Tensor, rows: tf.Tensor, keys: tf.Tensor, amounts: tf.Tensor) -> tf.Tensor:
        """Sum of amounts · weights over the keys of `items` int32 [B, N] that its row asks: float32 [B, N, A · W].

        Entry e says that row `rows[e]` asks `keys[e]` (int32 [E], each once a row) for `amounts[e]` (float32 [E, A]).
        """
        flat = tf.reshape(items, [-1])
        first, behind = tf.gather(self.first, flat), tf.gather(self.first, flat + 1)
        chunks = tf.raw_ops.RaggedRange(starts=first, limits=behind, deltas=1).rt_dense_values
        columns = tf.reshape(tf.gather(self.columns, chunks), [-1])
        marked = tf.scatter_nd((keys % _MARKS)[:, tf.newaxis], tf.ones_like(keys), [_MARKS])
        places = tf.cast(tf.where(tf.gather(marked, columns % _MARKS) > 0)[:, 0], tf.int32)
        owners = tf.gather(tf.repeat(tf.range(tf.size(flat)), behind - first), places // CHUNK)
        columns = tf.gather(columns, places)

        # The filling's key is the width itself, so that one more key than there are parts the rows.
        order, cells = _ordered(rows * (self.width + 1) + keys)
        wanted = owners // tf.shape(items)[1] * (self.width + 1) + columns
        entry, asked = find(cells, wanted)
        owners, places, entry = (tf.boolean_mask(found, asked) for found in (owners, places, entry))
        values = tf.gather(amounts, tf.gather(order, entry))
        if self.weighted:
            weights = tf.gather(self.weights, tf.gather(chunks, places // CHUNK) * CHUNK + places % CHUNK)
            width = amounts.shape[1] * weights.shape[1]
            values = tf.reshape(values[:, :, tf.newaxis] * weights[:, tf.newaxis, :], [-1, width])
        summed = tf.math.unsorted_segment_sum(values, owners, tf.size(flat))
        return tf.reshape(summed, tf.concat([tf.shape(items), [values.shape[1]]], 0))


def _ordered(cells: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    order = tf.argsort(cells)
    return order, tf.gather(cells, order)


def _chunked(starts: np.ndarray, values: np.ndarray, filling: int) -> np.ndarray:
    """The values of each row in rows of CHUNK [chunks, CHUNK], at least one."""
    lengths = np.diff(starts).astype(np.int64)
    first = np.concatenate([[0], np.cumsum(-(-lengths // CHUNK))])
    found = np.full((max(1, first[-1]), CHUNK), filling, values.dtype)
    flat = found.ravel()
    for begin in range(0, len(lengths), _BLOCK):
        of_block = lengths[begin : begin + _BLOCK]
        place = np.repeat(
            first[begin : begin + len(of_block)] * CHUNK - starts[begin : begin + len(of_block)], of_block
        )
        low, high = starts[begin], starts[begin + len(of_block)]
        flat[place + np.arange(low, high)] = values[low:high]
    return found
