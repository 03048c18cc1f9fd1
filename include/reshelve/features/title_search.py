"""Titles that hold a query's words or are spelled like it, at a cost that has a bound whatever the catalogue: TensorFlow alone.

Titles are found by words, and by n-grams that few titles share. Only those that are found are weighed. A common word leads to
its first titles alone, in one order for all words, so that what holds two common words is found under both; and of a query
the rarest words and n-grams are read first, until so many postings are. What is left unread is missing from the choice of
candidates alone: their features are computed from whole tables.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from reshelve.features.asked import AskedQueries
from reshelve.features.grams import tells
from reshelve.features.graph_tables import numbers
from reshelve.features.postings import Postings
from reshelve.features.tables import SearchTables

TITLES_OF = 16_384  # of a word or n-gram, at most
POSTINGS_READ = 49_152  # of a query, at most
SOURCES = ("bm25", "covered", "cosine")
_AT_ONCE = 4  # queries of a request
_TIE = 1e-3  # of the log popularity, among titles that the words fit equally
_POPULAR = 0.05  # of the log popularity, among titles that hold as many of the words
_NONE = -1e9


class TitleSearch(tf.Module):
    """`best`: of each query the titles that are best by BM25, by how much of the query's words they hold, and by spelling."""

    def __init__(self, tables: SearchTables, titles_of: int = TITLES_OF, read: int = POSTINGS_READ) -> None:
        super().__init__()
        self.items, self._read = len(tables.popularity), read
        log_popularity = np.log(tables.popularity.astype(np.float32))
        shorter = tables.title[:, 1]
        order = np.argsort(-(shorter + _POPULAR * log_popularity), kind="stable").astype(np.int32)
        by_gram = telling(tables, order).shortened(titles_of)
        # Titles are numbered by their order here; the last one is none.
        self.starts, self.titles = numbers(by_gram.starts), numbers(np.append(by_gram.columns, np.int32(0)))
        self.places = numbers(np.append(order, np.int32(self.items)))
        about = np.stack([tables.title[:, 0], shorter, log_popularity], axis=1).astype(np.float32)
        self.about = numbers(about[order])

    def best(self, asked: AskedQueries, most: Mapping[str, int]) -> dict[str, tf.Tensor]:
        """Of "bm25", "covered" and "cosine" the places of the best `most`, int32 [B, most]; `items` where there are fewer."""
        grams, widths = asked.grams, [most[name] for name in SOURCES]

        def of_query(row: tf.Tensor) -> tf.Tensor:
            mine = tf.where(grams.rows == row)[:, 0]
            return self._best(
                tf.gather(grams.ids, mine), tf.gather(grams.amounts, mine), grams.words[row], most
            )

        # One query after the other: what is touched stays in the processor's cache, and memory is that of few.
        found = tf.map_fn(
            of_query, tf.range(asked.count), fn_output_signature=tf.TensorSpec([sum(widths)], tf.int32),
            parallel_iterations=_AT_ONCE,
        )  # fmt: skip
        return dict(zip(SOURCES, tf.split(found, widths, axis=1), strict=True))

    def touched(self, ids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The titles that n-grams int32 [E] lead to, as many as are read, and which of the E each is of: int32 [P]."""
        starts = tf.gather(self.starts, ids)
        lengths = tf.gather(self.starts, ids + 1) - starts
        order = tf.argsort(lengths, stable=True)
        rising = tf.gather(lengths, order)
        before = tf.cumsum(rising, exclusive=True)
        read = tf.clip_by_value(self._read - before, 0, rising)
        starts = tf.gather(starts, order)
        places = tf.raw_ops.RaggedRange(starts=starts, limits=starts + read, deltas=1).rt_dense_values
        return tf.gather(self.titles, places), tf.repeat(order, read)

    def _best(
        self, ids: tf.Tensor, amounts: tf.Tensor, words: tf.Tensor, most: Mapping[str, int]
    ) -> tf.Tensor:
        """Of one query: `ids` [E], their `amounts` [E, 3], and the sum over its words."""
        postings, owner = self.touched(ids)
        titles, place = tf.unique(postings)
        alike, held = (
            tf.math.unsorted_segment_sum(tf.gather(amounts[:, column], owner), place, tf.size(titles))
            for column in (0, 2)
        )
        inverse_length, shorter, popularity = tf.unstack(tf.gather(self.about, titles), axis=1)
        with_word = held > 0
        scores = (
            tf.where(with_word, held * shorter + _TIE * popularity, _NONE),
            tf.where(with_word, held / words + _POPULAR * popularity, _NONE),
            tf.where(alike > 0, alike * inverse_length, _NONE),
        )
        best = [self._greatest(of, titles, most[name]) for name, of in zip(SOURCES, scores, strict=True)]
        return tf.concat(best, axis=0)

    def _greatest(self, scores: tf.Tensor, titles: tf.Tensor, most: int) -> tf.Tensor:
        scores = tf.concat([scores, tf.fill([most], _NONE)], axis=0)
        found, place = tf.math.top_k(scores, most)
        titles = tf.gather(tf.concat([titles, tf.fill([most], self.items)], axis=0), place)
        return tf.gather(self.places, tf.where(found > _NONE / 2, titles, self.items))


def telling(tables: SearchTables, order: np.ndarray) -> Postings:
    """gram → titles, of words and of the n-grams that few titles share; a title's number is its place in `order`."""
    titles, items = tables.titles, len(tables.popularity)
    often = titles.column_counts().tolist()
    kept = (tells(gram, n, items) for gram, n in zip(tables.grams, often, strict=True))
    return titles.only(np.fromiter(kept, bool, titles.width)).rows(order).transposed()
