"""Sparse rows that a key leads to: what was chosen under a query, in which titles an n-gram is.

Kept as flat arrays, so that TensorFlow reads them with gathers and a segment sum, on any server.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from scipy import sparse

from reshelve.features.graph_tables import numbers

Array = np.ndarray

_ROWS, _COUNTED = 2**16, 2**24  # rows and postings at a time: bounds memory


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

    def slice(self, begin: int, end: int) -> Postings:
        """Rows from `begin` to before `end`; the arrays are shared."""
        starts = self.starts[begin : end + 1]
        part = slice(starts[0], starts[-1])
        return Postings(starts - starts[0], self.columns[part], self.weights[part], self.width)

    def matrix(self) -> sparse.csr_matrix:
        """1 at each posting, float32."""
        ones = np.ones(len(self.columns), np.float32)
        return sparse.csr_matrix((ones, self.columns, self.starts), (len(self.starts) - 1, self.width))

    def sums(self, of_column: Array) -> Array:
        """Of each row the sum of a number of each of its columns, float32 [width]: float32 [rows]."""
        rows = len(self.starts) - 1
        blocks = [self.slice(begin, min(begin + _ROWS, rows)) for begin in range(0, rows, _ROWS)]
        return np.concatenate([np.empty(0, np.float32), *(block.matrix() @ of_column for block in blocks)])

    def column_counts(self) -> Array:
        """How many postings lead to each column, int64 [width]."""
        found = np.zeros(self.width, np.int64)
        for begin in range(0, len(self.columns), _COUNTED):
            found += np.bincount(self.columns[begin : begin + _COUNTED], minlength=self.width)
        return found

    def renumbered(self, used: Array) -> Postings:
        """Only the columns `used` (rising, and all that a posting leads to), numbered by their places there."""
        if len(used) == self.width:
            return self
        place = np.full(self.width, -1, np.int32)
        place[used] = np.arange(len(used), dtype=np.int32)
        return Postings(self.starts, place[self.columns], self.weights, len(used))

    def transposed(self) -> Postings:
        """Column c leads to the rows that lead to it, in order, with the same weights."""
        rows, unweighted = len(self.starts) - 1, not self.weights.shape[1]
        # Counting is quicker than sorting. What is moved along is the number of each posting, where its weights are needed.
        moved = np.zeros(len(self.columns), np.int8) if unweighted else np.arange(len(self.columns))
        turned = sparse.csr_matrix((moved, self.columns, self.starts), (rows, self.width)).tocsc()
        weights = self.weights if unweighted else self.weights[turned.data]
        return Postings(
            turned.indptr.astype(np.int32, copy=False), turned.indices.astype(np.int32, copy=False), weights, rows
        )  # fmt: skip

    def rows(self, order: Array) -> Postings:
        """The rows in `order` [rows]."""
        lengths = np.diff(self.starts)[order]
        starts = _starts(lengths)
        place = np.repeat(self.starts[order] - starts[:-1], lengths)
        place += np.arange(len(place), dtype=np.int32)
        return Postings(starts, self.columns[place], self.weights[place], self.width)

    def only(self, columns: Array) -> Postings:
        """Only the postings whose column is True in bool [width]."""
        kept = columns[self.columns]
        lengths = np.add.reduceat(np.append(kept, False), self.starts[:-1], dtype=np.int32)
        lengths[np.diff(self.starts) == 0] = 0  # where there is nothing to add, reduceat takes what follows
        return Postings(_starts(lengths), self.columns[kept], self.weights[kept], self.width)

    def shortened(self, most: int) -> Postings:
        """Only the first `most` postings of each row."""
        kept = np.ones(len(self.columns), bool)
        for row in np.flatnonzero(np.diff(self.starts) > most).tolist():
            kept[self.starts[row] + most : self.starts[row + 1]] = False
        lengths = np.minimum(np.diff(self.starts), most)
        return Postings(_starts(lengths), self.columns[kept], self.weights[kept], self.width)

    def moved(self, rows: Array, columns: Array, height: int, width: int) -> Postings:
        """Of a table of `height` rows and `width` columns: row r is at `rows[r]` there, column c at `columns[c]`; -1: it is gone."""
        row = rows[np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))]
        column = columns[self.columns]
        kept = np.flatnonzero((row >= 0) & (column >= 0))
        kept = kept[np.lexsort((column[kept], row[kept]))]
        starts = np.concatenate([[0], np.cumsum(np.bincount(row[kept], minlength=height))])
        return Postings(starts.astype(np.int32), column[kept].astype(np.int32), self.weights[kept], width)

    def first(self, most: int, by: Array) -> Postings:
        """Of each row the `most` postings that are greatest by `by` [P], the greatest first."""
        rows = np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))
        order = np.lexsort((self.columns, -by, rows))
        kept = order[np.arange(len(order)) - self.starts[rows[order]] < most]
        lengths = np.bincount(rows[kept], minlength=len(self.starts) - 1)
        return Postings(_starts(lengths), self.columns[kept], self.weights[kept], self.width)

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


def _starts(lengths: Array) -> Array:
    """Where rows of these lengths start, and at last where they end: int32."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)


class PostingsTable(tf.Module):
    """One `Postings` in TensorFlow."""

    def __init__(self, postings: Postings) -> None:
        super().__init__()
        # An empty table still needs one posting to gather from; no row leads to it.
        empty = not len(postings.columns)
        self.width = postings.width
        self.weighted = postings.weights.shape[1] > 0
        self.starts = numbers(postings.starts)
        self.columns = numbers(np.zeros(1, np.int32) if empty else postings.columns)
        if self.weighted:
            self.weights = numbers(
                np.zeros((1, postings.weights.shape[1]), np.float32) if empty else postings.weights
            )

    def spread(self, rows: tf.Tensor, keys: tf.Tensor, amounts: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        """Sum of amounts · weights over all postings of the keys: float32 [count, width, A · W].

        Entry e adds the postings of table row `keys[e]` (int32 [E], all valid) times `amounts[e]` (float32 [E, A], or [E] for
        one) to output row `rows[e]` (int32 [E]). Where the table has no weights each posting counts as 1 (W = 1).
        """
        cells, values = self.entries(rows, keys, amounts)
        summed = tf.math.unsorted_segment_sum(values, cells, count * self.width)
        return tf.reshape(summed, [count, self.width, values.shape[1]])

    def sparse(self, rows: tf.Tensor, keys: tf.Tensor, amounts: tf.Tensor) -> SparseSums:
        """The same sums, of the cells alone that a posting leads to."""
        cells, values = self.entries(rows, keys, amounts)
        found, place = tf.unique(cells)
        summed = tf.math.unsorted_segment_sum(values, place, tf.size(found))
        order = tf.argsort(found)
        return SparseSums(self.width, tf.gather(found, order), tf.gather(summed, order))

    def entries(self, rows: tf.Tensor, keys: tf.Tensor, amounts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The cell (row · width + column) of each posting, int32 [P], and what it adds there, float32 [P, A · W]."""
        owner, place = self.expand(keys)
        amounts = amounts if amounts.shape.rank == 2 else amounts[:, tf.newaxis]
        values = tf.gather(amounts, owner)
        if self.weighted:
            weights = tf.gather(self.weights, place)
            width = amounts.shape[1] * weights.shape[1]
            values = tf.reshape(values[:, :, tf.newaxis] * weights[:, tf.newaxis, :], [-1, width])
        return tf.gather(rows, owner) * self.width + tf.gather(self.columns, place), values

    def expand(self, keys: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """All postings of table rows `keys` int32 [E], in order: whose each is (0 to E - 1), and its place; int32 [P]."""
        starts = tf.gather(self.starts, keys)
        lengths = tf.gather(self.starts, keys + 1) - starts
        owner = tf.repeat(tf.range(tf.size(keys)), lengths)
        first = tf.cumsum(lengths, exclusive=True)
        return owner, tf.range(tf.size(owner)) - tf.gather(first - starts, owner)


class SparseSums(NamedTuple):
    """Sums that are not 0: of `cells` (row · width + column) int32 [U], sorted, the `values` float32 [U, W]."""

    width: int
    cells: tf.Tensor
    values: tf.Tensor

    @property
    def rows(self) -> tf.Tensor:
        """The row of each cell."""
        return self.cells // self.width

    @property
    def columns(self) -> tf.Tensor:
        """The column of each cell."""
        return self.cells % self.width

    def at(self, columns: tf.Tensor) -> tf.Tensor:
        """The sums at `columns` int32 [rows, N] of each row, 0 where there is none: float32 [rows, N, W]."""
        wanted = tf.range(tf.shape(columns)[0])[:, tf.newaxis] * self.width + columns
        place, hit = find(self.cells, tf.reshape(wanted, [-1]))
        values = tf.concat([self.values, tf.zeros([1, self.values.shape[1]])], 0)
        found = tf.gather(values, tf.where(hit, place, tf.size(self.cells)))
        return tf.reshape(found, tf.concat([tf.shape(columns), [self.values.shape[1]]], 0))

    def greatest(self, scores: tf.Tensor, rows: tf.Tensor, most: int) -> tf.Tensor:
        """The columns of each row's `most` greatest `scores` [U], int32 [rows, most]; `width` where there are fewer."""
        order = tf.argsort(scores, direction="DESCENDING")
        order = tf.gather(order, tf.argsort(tf.gather(self.rows, order), stable=True))
        row = tf.gather(self.rows, order)
        rank = tf.range(tf.size(order)) - tf.searchsorted(row, row)
        kept = rank < most
        at = tf.stack([tf.boolean_mask(row, kept), tf.boolean_mask(rank, kept)], axis=1)
        columns = tf.boolean_mask(tf.gather(self.columns, order), kept)
        return tf.tensor_scatter_nd_update(tf.fill([rows, most], self.width), at, columns)


def find(ordered: tf.Tensor, wanted: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Where each of int32 `wanted` [n] is in the rising int32 `ordered` [m] (a valid place, if m is not 0), and whether it is."""
    place = tf.minimum(tf.searchsorted(ordered, wanted), tf.maximum(tf.size(ordered) - 1, 0))
    # One more entry, so that there is something to look at where nothing is ordered. No cell is as large.
    filled = tf.concat([ordered, [tf.int32.max]], 0)
    return place, tf.gather(filled, place) == wanted
