"""The queries' side of a search: their n-grams, the past queries spelled alike, and how often they were asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from reshelve.features.graph_tables import Places, numbers
from reshelve.features.postings import PostingsTable
from reshelve.features.tables import SearchTables
from reshelve.features.text import Keys, TextKeys

NEIGHBOURS = 64  # past queries spelled alike that are read
_ALIKE = 0.25  # cosine below which spelling says nothing
FLOOR = 1e-7


class QueryGrams(NamedTuple):
    """Known n-grams of all queries (rows, ids, idf: [m]); and per query [B]: Euclidean length, sum, sum over words.

    `amounts` [m, 3]: idf², idf, and idf where it is a word, else 0.
    """

    rows: tf.Tensor
    ids: tf.Tensor
    idf: tf.Tensor
    amounts: tf.Tensor
    length: tf.Tensor
    total: tf.Tensor
    words: tf.Tensor


class GramSays(NamedTuple):
    """Per query [B], over its n-grams: how many were asked before, log constants, weights in the mixture, popularity's part."""

    number: tf.Tensor
    constant: tf.Tensor
    weight: tf.Tensor
    popular: tf.Tensor


class AskedQueries(NamedTuple):
    """What queries [B] ask of the memory, whatever the items.

    `rows` and `keys` [e]: those of them that were asked before. Of the queries spelled alike `near_rows`, `near_keys` [n] and
    `near_amounts` [n, S], by sharpness; `near_totals`: of each sharpness the choices in all [B, W]; `chosen_total` [B, W] those
    under the very query. `most_alike`, `length`, `words` [B] are features.
    """

    count: tf.Tensor
    grams: QueryGrams
    said: GramSays
    rows: tf.Tensor
    keys: tf.Tensor
    near_rows: tf.Tensor
    near_keys: tf.Tensor
    near_amounts: tf.Tensor
    near_totals: tuple[tf.Tensor, ...]
    chosen_total: tf.Tensor
    most_alike: tf.Tensor
    length: tf.Tensor
    words: tf.Tensor


class QueryReader(tf.Module):
    """`read`: string queries [B] → AskedQueries."""

    def __init__(self, tables: SearchTables, sharpness: Sequence[float]) -> None:
        super().__init__()
        self.text = TextKeys()
        self.known_keys = len(tables.keys)
        self.key_places, self.gram_places = Places(tables.keys), Places(tables.grams)
        self.alike = PostingsTable(tables.alike)
        self.gram = numbers(tables.gram)
        self.totals = numbers(_totals(tables))
        self.idf_unseen, self.sharpness = tables.idf_unseen, tuple(sharpness)

    def read(self, queries: tf.Tensor) -> AskedQueries:
        """Finite for every query."""
        keys, count = self.text.keys(queries), tf.size(queries)
        grams = self._grams(keys, count)
        similar = self.alike.spread(grams.rows, grams.ids, grams.idf, count)[..., 0]
        similar /= grams.length[:, tf.newaxis]
        near = min(NEIGHBOURS, self.known_keys)
        found, near_keys = tf.math.top_k(similar, near)
        amounts = tf.stack([tf.where(found < _ALIKE, 0.0, found**power) for power in self.sharpness], axis=-1)
        per_key = tf.gather(self.totals, near_keys)
        key = self.key_places.lookup(keys.compact)
        rows = tf.cast(tf.where(key >= 0)[:, 0], tf.int32)
        known = tf.gather(key, rows)
        kept = found >= _ALIKE
        return AskedQueries(
            count, grams, self._said(grams, count), rows, known,
            tf.cast(tf.where(kept)[:, 0], tf.int32), tf.boolean_mask(near_keys, kept), tf.boolean_mask(amounts, kept),
            tuple(
                tf.reduce_sum(amounts[..., number, tf.newaxis] * per_key, axis=1)
                for number in range(len(self.sharpness))
            ),
            tf.math.unsorted_segment_sum(tf.gather(self.totals, known), rows, count),
            tf.reduce_max(similar, axis=1) if self.known_keys else tf.zeros([count]),
            tf.math.log1p(tf.cast(tf.strings.length(keys.compact, unit="UTF8_CHAR"), tf.float32)),
            tf.math.log1p(_sums(tf.ones_like(keys.word_rows, tf.float32), keys.word_rows, count)),
        )  # fmt: skip

    def _grams(self, keys: Keys, count: tf.Tensor) -> QueryGrams:
        found = self.gram_places.lookup(keys.grams)
        is_word = tf.range(tf.size(found)) >= tf.size(found) - tf.size(keys.words)
        unseen = tf.where(found < 0, self.idf_unseen, 0.0)
        # Each known n-gram once per query; those that nobody knows only make the query longer.
        number = self.gram.shape[0]
        cells = keys.gram_rows * number + found
        cells = tf.unique(tf.boolean_mask(cells, found >= 0))[0]
        rows, ids = cells // number, cells % number
        about = tf.gather(self.gram, ids)
        idf, of_word = about[:, 0], about[:, 5]
        return QueryGrams(
            rows, ids, idf, tf.stack([idf**2, idf, idf * of_word], axis=1),
            tf.sqrt(_sums(idf**2, rows, count) + _sums(unseen**2, keys.gram_rows, count)) + FLOOR,
            _sums(idf, rows, count) + _sums(unseen, keys.gram_rows, count) + FLOOR,
            _sums(idf * of_word, rows, count) + FLOOR
            + _sums(tf.where(is_word, unseen, 0.0), keys.gram_rows, count),
        )  # fmt: skip

    def _said(self, grams: QueryGrams, count: tf.Tensor) -> GramSays:
        about = tf.gather(self.gram, grams.ids)
        constant, weight, popular, number = (
            _sums(about[:, column], grams.rows, count) for column in (1, 2, 3, 4)
        )
        return GramSays(tf.maximum(number, 1.0), constant, weight + FLOOR, popular + FLOOR)


def _totals(tables: SearchTables) -> np.ndarray:
    """All choices under each key, float32 [K, W]; a row of 0 where nothing was ever asked."""
    chosen = tables.chosen
    rows = np.repeat(np.arange(len(chosen.starts) - 1), np.diff(chosen.starts))
    found = np.zeros((max(1, len(chosen.starts) - 1), chosen.weights.shape[1]))
    np.add.at(found, rows, chosen.weights)
    return found.astype(np.float32)


def _sums(values: tf.Tensor, rows: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    return tf.math.unsorted_segment_sum(values, rows, count)
