"""The features of every item for a query, looked up in the memory of one instant: TensorFlow alone, dense [B, C, F].

The same code runs when the blend is fitted and inside the SavedModel, so that a version answers as it was judged.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from reshelve.features.postings import PostingsTable
from reshelve.features.tables import HALF_LIVES, PRIOR_AGE, SearchTables
from reshelve.features.text import Keys, TextKeys

NEIGHBOURS = 64  # past queries spelled alike that are read
_ALIKE = 0.25  # cosine below which spelling says nothing
_SHARPNESS = (3.0, 8.0)  # of the cosine: many neighbours a little, the nearest alone
_NEIGHBOUR_PRIOR = 1.0  # events of popularity in what neighbours say
_CHOSEN_PRIOR = 3.0  # events of what neighbours say in what was chosen under the query itself
_FLOOR = 1e-7

_AGES = tuple("ever" if half_life == float("inf") else f"{half_life:g}d" for half_life in HALF_LIVES)
# The order of the last axis.
FEATURES = (
    *(f"popularity_{age}" for age in _AGES), "age", "never_chosen", "untitled",
    "title_cosine", "title_contains", "bm25", "words_covered", "grams_say", "grams_mixture",
    *(f"alike{power:g}_{age}" for power in _SHARPNESS for age in _AGES),
    *(f"chosen_{age}" for age in _AGES), "chosen_count",
    *(f"query_count_{age}" for age in _AGES), "query_alike", "query_entropy", "query_length", "query_words",
)  # fmt: skip


class SearchEvidence(tf.Module):
    """`features`: string queries [B] → float32 [B, C, len(FEATURES)]."""

    def __init__(self, tables: SearchTables) -> None:
        super().__init__()
        self.text = TextKeys()
        self.items = len(tables.popularity)
        self.known_keys = len(tables.keys)
        self.key_ids = _lookup(tables.keys)
        self.gram_ids = _lookup(tables.grams)
        self.chosen, self.alike, self.titles, self.says = (
            PostingsTable(table) for table in (tables.chosen, tables.alike, tables.titles, tables.says)
        )
        self.gram = tf.constant(tables.gram)
        self.item = tf.constant(tables.item)
        self.prior = tf.constant(tables.popularity)
        self.idf_unseen = tables.idf_unseen

    def features(self, queries: tf.Tensor) -> tf.Tensor:
        """Finite for every query and item, known or not."""
        keys, count = self.text.keys(queries), tf.size(queries)
        grams = self._grams(keys, count)
        ones = tf.ones_like(grams.idf)
        titles = self.titles.spread(grams.rows, grams.ids, ones, count)
        cosine = self.titles.spread(grams.rows, grams.ids, grams.idf, count)[..., 0]
        similar = self.alike.spread(grams.rows, grams.ids, grams.idf, count)[..., 0]
        similar /= grams.length[:, tf.newaxis]
        say, mixture = self._say(grams, count)
        neighbours, likely = self._neighbours(similar, count)
        chosen, asked = self._chosen(keys.compact, likely)
        of_both = [
            cosine / grams.length[:, tf.newaxis], titles[..., 1] / grams.total[:, tf.newaxis],
            titles[..., 2], titles[..., 3] / grams.words[:, tf.newaxis], say, mixture,
        ]  # fmt: skip
        of_query = [*asked, tf.reduce_max(similar, axis=1) if self.known_keys else tf.zeros([count])]
        of_query += [
            -tf.reduce_sum(likely * tf.math.log(likely + _FLOOR), axis=1),
            tf.math.log1p(tf.cast(tf.strings.length(keys.compact, unit="UTF8_CHAR"), tf.float32)),
            tf.math.log1p(_sums(tf.ones_like(keys.word_rows, tf.float32), keys.word_rows, count)),
        ]
        shape = [count, self.items]
        everywhere = [tf.broadcast_to(column[:, tf.newaxis], shape) for column in of_query]
        per_item = [tf.broadcast_to(column, shape) for column in tf.unstack(self.item, axis=1)]
        return tf.stack([*per_item, *of_both, *neighbours, *chosen, *everywhere], axis=-1)

    def _grams(self, keys: Keys, count: tf.Tensor) -> _Grams:
        found = self.gram_ids.lookup(keys.grams)
        is_word = tf.range(tf.size(found)) >= tf.size(found) - tf.size(keys.words)
        unseen = tf.where(found < 0, self.idf_unseen, 0.0)
        # Each known n-gram once per query; those that nobody knows only make the query longer.
        cells = keys.gram_rows * len(self.gram) + found
        cells = tf.unique(tf.boolean_mask(cells, found >= 0))[0]
        rows, ids = cells // len(self.gram), cells % len(self.gram)
        idf, of_word = tf.gather(self.gram[:, 0], ids), tf.gather(self.gram[:, 5], ids)
        return _Grams(
            rows, ids, idf,
            tf.sqrt(_sums(idf**2, rows, count) + _sums(unseen**2, keys.gram_rows, count)) + _FLOOR,
            _sums(idf, rows, count) + _sums(unseen, keys.gram_rows, count) + _FLOOR,
            _sums(idf * of_word, rows, count) + _FLOOR
            + _sums(tf.where(is_word, unseen, 0.0), keys.gram_rows, count),
        )  # fmt: skip

    def _say(self, grams: _Grams, count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Naive Bayes over the query's n-grams: mean log lift (by the root of their number), and the mixture's log."""
        about = tf.gather(self.gram, grams.ids)
        says = self.says.spread(grams.rows, grams.ids, tf.ones_like(grams.idf), count)
        number = tf.maximum(_sums(about[:, 4], grams.rows, count), 1.0)
        lift = says[..., 0] + _sums(about[:, 1], grams.rows, count)[:, tf.newaxis]
        weight = _sums(about[:, 2], grams.rows, count) + _FLOOR
        popular = (_sums(about[:, 3], grams.rows, count) + _FLOOR)[:, tf.newaxis] * self.prior
        mixed = (says[..., 1] + popular) / weight[:, tf.newaxis]
        return lift / tf.sqrt(number)[:, tf.newaxis], tf.math.log(mixed + _FLOOR)

    def _neighbours(self, similar: tf.Tensor, count: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Log shares of what was chosen under queries spelled alike [B, C], and the share used as a prior."""
        near = min(NEIGHBOURS, self.known_keys)
        found, key = tf.math.top_k(similar, near)
        rows = tf.repeat(tf.range(count), near)
        features, shares = [], []
        for power in _SHARPNESS:
            amounts = tf.where(found < _ALIKE, 0.0, found**power)
            counts = self.chosen.spread(rows, tf.reshape(key, [-1]), tf.reshape(amounts, [-1]), count)
            share = _smoothed(counts, self.prior[:, tf.newaxis], _NEIGHBOUR_PRIOR)
            features += [tf.math.log(column + _FLOOR) for column in tf.unstack(share, axis=-1)]
            shares.append(share[..., PRIOR_AGE])
        return features, 0.3 * shares[0] + 0.7 * shares[1]

    def _chosen(self, compact: tf.Tensor, likely: tf.Tensor) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """Log shares of what was chosen under this very query, with its count [B, C]; and how often it was asked [B]."""
        count = tf.size(compact)
        key = self.key_ids.lookup(compact)
        asked = tf.cast(tf.where(key >= 0)[:, 0], tf.int32)
        counts = self.chosen.spread(asked, tf.gather(key, asked), tf.ones_like(asked, tf.float32), count)
        share = _smoothed(counts, likely[..., tf.newaxis], _CHOSEN_PRIOR)
        features = [tf.math.log(column + _FLOOR) for column in tf.unstack(share, axis=-1)]
        features.append(tf.math.log1p(counts[..., 0]))
        return features, tf.unstack(tf.math.log1p(tf.reduce_sum(counts, axis=1)), axis=-1)


class _Grams(NamedTuple):
    """Known n-grams of all queries (row, id, idf: [m]); and per query [B]: Euclidean length, sum, sum over words."""

    rows: tf.Tensor
    ids: tf.Tensor
    idf: tf.Tensor
    length: tf.Tensor
    total: tf.Tensor
    words: tf.Tensor


def _lookup(texts: list[str]) -> tf.lookup.StaticHashTable:
    # A table needs an entry; no key or n-gram holds a line feed.
    keys = texts or ["\n"]
    ids = tf.range(len(texts), dtype=tf.int32) if texts else tf.constant([-1], tf.int32)
    return tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(tf.constant(keys), ids), -1)


def _sums(values: tf.Tensor, rows: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    return tf.math.unsorted_segment_sum(values, rows, count)


def _smoothed(counts: tf.Tensor, prior: tf.Tensor, strength: float) -> tf.Tensor:
    """Shares of counts [B, C, W] after `strength` events spread as `prior` (Dirichlet)."""
    return (counts + strength * prior) / (tf.reduce_sum(counts, axis=1, keepdims=True) + strength)
