"""Sparse rows that a key leads to: what was chosen under a query, in which titles an n-gram is.

Kept as flat arrays, so that TensorFlow reads them with gathers and a segment sum, on any server.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from scipy import sparse

Array = np.ndarray


@dataclass(frozen=True)
class Postings:
    """Row r leads to `columns[starts[r] : starts[r + 1]]`, each with W weights: `weights` float32 [P, W]."""

    starts: Array  # int32 [rows + 1]
    columns: Array  # int32 [P]
    weights: Array  # float32 [P, W]
    width: int  # how many columns there are

    @classmethod
    def of(cls, first: sparse.csr_matrix, *others: sparse.csr_matrix) -> Postings:
        """Matrices of one shape; the first says where postings are, the others weigh the same places (0 elsewhere)."""
        first = sparse.csr_matrix(first)
        first.eliminate_zeros()
        first.sort_indices()
        rows = np.repeat(np.arange(first.shape[0]), np.diff(first.indptr))
        weights = [first.data]
        for matrix in others:  # scipy makes a matrix of an empty selection
            weights.append(np.asarray(matrix[rows, first.indices]).ravel() if len(rows) else first.data)
        return cls(
            first.indptr.astype(np.int32),
            first.indices.astype(np.int32),
            np.stack([np.asarray(w, np.float32) for w in weights], axis=1),
            int(first.shape[1]),
        )

    def tensors(self, name: str) -> dict[str, Array]:
        """Named arrays, for one safetensors file of many tables."""
        return {
            f"{name}.starts": self.starts,
            f"{name}.columns": self.columns,
            f"{name}.weights": self.weights,
            f"{name}.width": np.array([self.width], np.int32),
        }

    @classmethod
    def read(cls, name: str, tensors: dict[str, Array]) -> Postings:
        """The table that `tensors` wrote."""
        return cls(
            starts=tensors[f"{name}.starts"],
            columns=tensors[f"{name}.columns"],
            weights=tensors[f"{name}.weights"],
            width=int(tensors[f"{name}.width"][0]),
        )


class PostingsTable(tf.Module):
    """One `Postings` in TensorFlow."""

    def __init__(self, postings: Postings) -> None:
        super().__init__()
        # An empty table still needs one posting to gather from; no row leads to it.
        empty = not len(postings.columns)
        self.width = postings.width
        self.starts = tf.constant(postings.starts)
        self.columns = tf.constant(np.zeros(1, np.int32) if empty else postings.columns)
        self.weights = tf.constant(
            np.zeros((1, postings.weights.shape[1]), np.float32) if empty else postings.weights
        )

    def spread(self, rows: tf.Tensor, keys: tf.Tensor, amounts: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        """Sum of amount · weights over all postings of the keys: float32 [count, width, W].

        Entry e adds the postings of table row `keys[e]` (int32 [E], all valid) times `amounts[e]` (float32 [E]) to
        output row `rows[e]` (int32 [E]).
        """
        starts = tf.gather(self.starts, keys)
        lengths = tf.gather(self.starts, keys + 1) - starts
        owner = tf.repeat(tf.range(tf.size(keys)), lengths)
        first = tf.cumsum(lengths, exclusive=True)
        place = tf.range(tf.size(owner)) - tf.gather(first - starts, owner)
        values = tf.gather(self.weights, place) * tf.gather(amounts, owner)[:, tf.newaxis]
        cell = tf.gather(rows, owner) * self.width + tf.gather(self.columns, place)
        summed = tf.math.unsorted_segment_sum(values, cell, count * self.width)
        return tf.reshape(summed, [count, self.width, self.weights.shape[1]])
