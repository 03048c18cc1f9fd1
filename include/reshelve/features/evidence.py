"""The features of items for a query, looked up in the memory of one instant: TensorFlow alone.

`SearchEvidence` reads every item, dense [B, C, F], which a small catalogue bears. `NamedEvidence` reads those that it is told
[B, N, F] (`features.candidates` names them), at a cost that does not follow the catalogue. They agree on each item.

The same code runs when the blend is fitted and inside the SavedModel, so that a version answers as it was judged.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from reshelve.features.asked import FLOOR, AskedQueries, QueryReader
from reshelve.features.graph_tables import numbers
from reshelve.features.postings import PostingsTable, SparseSums
from reshelve.features.row_sums import RowSums
from reshelve.features.tables import HALF_LIVES, PRIOR_AGE, SearchTables

SHARPNESS = (3.0, 8.0)  # of the cosine: many neighbours a little, the nearest alone
_SHARE = (0.3, 0.7)  # of them in what is likely before anything was chosen under the query itself
_NEIGHBOUR_PRIOR = 1.0  # events of popularity in what neighbours say
_CHOSEN_PRIOR = 3.0  # events of what neighbours say in what was chosen under the query itself

_AGES = tuple("ever" if half_life == float("inf") else f"{half_life:g}d" for half_life in HALF_LIVES)
# The order of the last axis.
FEATURES = (
    *(f"popularity_{age}" for age in _AGES), "age", "never_chosen", "untitled",
    "title_cosine", "title_contains", "bm25", "words_covered", "grams_say", "grams_mixture",
    *(f"alike{power:g}_{age}" for power in SHARPNESS for age in _AGES),
    *(f"chosen_{age}" for age in _AGES), "chosen_count",
    *(f"query_count_{age}" for age in _AGES), "query_alike", "query_entropy", "query_length", "query_words",
)  # fmt: skip


class ItemSums(NamedTuple):
    """What postings add up to of N items, float32: and what is known of the items whatever is asked.

    titles [B, N, 3]: idf², idf and idf of words that title and query share. says [B, N, 2]. alike [B, N, 2 · W] and
    chosen [B, N, W]: counts of choices under queries spelled alike, and under the very query. prior [N], item [N, H + 3] and
    title [N, 2], or the same for each query [B, …]. entropy [B].
    """

    titles: tf.Tensor
    says: tf.Tensor
    alike: tf.Tensor
    chosen: tf.Tensor
    prior: tf.Tensor
    item: tf.Tensor
    title: tf.Tensor
    entropy: tf.Tensor


class _Evidence(tf.Module):
    """What both ways share: the queries' side, and the formulas."""

    def __init__(self, tables: SearchTables) -> None:
        super().__init__()
        self.queries = QueryReader(tables, SHARPNESS)
        self.items = len(tables.popularity)
        self.chosen = PostingsTable(tables.chosen)
        self.item, self.prior, self.title = (
            numbers(found) for found in (tables.item, tables.popularity, tables.title)
        )

    def _features(self, asked: AskedQueries, sums: ItemSums) -> tf.Tensor:
        """float32 [B, N, F]: finite for every query and item, known or not."""
        grams, shape = asked.grams, tf.shape(sums.titles)[:2]
        inverse_length, shorter = tf.unstack(sums.title, axis=-1)
        shared, held, of_words = tf.unstack(sums.titles, axis=-1)
        of_both = [
            shared * inverse_length / grams.length[:, tf.newaxis], held / grams.total[:, tf.newaxis],
            of_words * shorter, of_words / grams.words[:, tf.newaxis], *_say(asked, sums),
        ]  # fmt: skip
        neighbours, likely = _neighbours(asked, sums)
        share = _smoothed(sums.chosen, asked.chosen_total, likely[..., tf.newaxis], _CHOSEN_PRIOR)
        chosen = [_log(column) for column in tf.unstack(share, axis=-1)]
        chosen.append(tf.math.log1p(sums.chosen[..., 0]))
        of_query = [*tf.unstack(tf.math.log1p(asked.chosen_total), axis=-1), asked.most_alike]
        of_query += [sums.entropy, asked.length, asked.words]
        everywhere = [tf.broadcast_to(column[:, tf.newaxis], shape) for column in of_query]
        per_item = [tf.broadcast_to(column, shape) for column in tf.unstack(sums.item, axis=-1)]
        return tf.stack([*per_item, *of_both, *neighbours, *chosen, *everywhere], axis=-1)


class SearchEvidence(_Evidence):
    """`features`: string queries [B] → float32 [B, C, len(FEATURES)]."""

    def __init__(self, tables: SearchTables) -> None:
        super().__init__(tables)
        self.titles = PostingsTable(tables.titles.transposed())
        self.says = PostingsTable(tables.says)

    def features(self, queries: tf.Tensor) -> tf.Tensor:
        """Finite for every query and item, known or not."""
        asked = self.queries.read(queries)
        count, grams = asked.count, asked.grams
        near = self.chosen.spread(asked.near_rows, asked.near_keys, asked.near_amounts, count)
        own = self.chosen.spread(asked.rows, asked.keys, tf.ones_like(asked.rows, tf.float32), count)
        sums = ItemSums(
            self.titles.spread(grams.rows, grams.ids, grams.amounts, count),
            self.says.spread(grams.rows, grams.ids, tf.ones_like(grams.idf), count),
            near, own, self.prior, self.item, self.title, tf.zeros([count]),
        )  # fmt: skip
        likely = _neighbours(asked, sums)[1]
        entropy = -tf.reduce_sum(tf.math.xlogy(likely, likely), axis=1)
        return self._features(asked, sums._replace(entropy=entropy))


class NamedEvidence(_Evidence):
    """`features`: of what `read` made of queries [B], and places [B, N] → float32 [B, N, len(FEATURES)]."""

    def __init__(self, tables: SearchTables) -> None:
        super().__init__(tables)
        self.titles = RowSums(tables.titles)
        self.says = RowSums(tables.says.transposed())
        prior = tables.popularity.astype(float)
        self._prior_entropy = float((prior * np.log(prior)).sum())

    def read(self, queries: tf.Tensor) -> tuple[AskedQueries, NamedSums]:
        """What is asked, and what was chosen under that and the like."""
        asked = self.queries.read(queries)
        own = self.chosen.sparse(asked.rows, asked.keys, tf.ones_like(asked.rows, tf.float32))
        near = self.chosen.sparse(asked.near_rows, asked.near_keys, asked.near_amounts)
        return asked, NamedSums(own, near)

    def features(self, asked: AskedQueries, found: NamedSums, places: tf.Tensor) -> tf.Tensor:
        """Finite. `places` int32 [B, N], each of the catalogue."""
        grams = asked.grams
        ones = tf.ones_like(grams.idf)[:, tf.newaxis]
        sums = ItemSums(
            self.titles.at(places, grams.rows, grams.ids, grams.amounts),
            self.says.at(places, grams.rows, grams.ids, ones),
            found.near.at(places), found.own.at(places),
            tf.gather(self.prior, places), tf.gather(self.item, places), tf.gather(self.title, places),
            self._entropy(asked, found.near),
        )  # fmt: skip
        return self._features(asked, sums)

    def _entropy(self, asked: AskedQueries, near: SparseSums) -> tf.Tensor:
        """Of what is likely over all items [B]: those that a neighbour chose one by one, the others together.

        Where nobody chose it, an item's likelihood is the same multiple of its prior as any other's.
        """
        rows, prior = near.rows, tf.gather(self.prior, near.columns)
        of_row = [tf.gather(total, rows) for total in asked.near_totals]
        width = self.chosen.weights.shape[1]
        likely = tf.add_n([
            share
            * (near.values[:, number * width + PRIOR_AGE] + _NEIGHBOUR_PRIOR * prior)
            / (of_row[number][:, PRIOR_AGE] + _NEIGHBOUR_PRIOR)
            for number, share in enumerate(_SHARE)
        ])  # fmt: skip
        mass, touched, known = (
            tf.math.unsorted_segment_sum(values, rows, asked.count)
            for values in (prior, tf.math.xlogy(prior, prior), tf.math.xlogy(likely, likely))
        )
        times = tf.add_n([
            share * _NEIGHBOUR_PRIOR / (total[:, PRIOR_AGE] + _NEIGHBOUR_PRIOR)
            for share, total in zip(_SHARE, asked.near_totals, strict=True)
        ])  # fmt: skip
        rest = tf.maximum(1.0 - mass, 0.0)
        others = times * (self._prior_entropy - touched) + tf.math.xlogy(times, times) * rest
        return -(known + others)


class NamedSums(NamedTuple):
    """Counts of choices under the very queries [.., W], and under those spelled alike [.., 2 · W]."""

    own: SparseSums
    near: SparseSums


def _say(asked: AskedQueries, sums: ItemSums) -> tuple[tf.Tensor, tf.Tensor]:
    """Naive Bayes over the query's n-grams: mean log lift (by the root of their number), and the mixture's log."""
    said = asked.said
    lift = sums.says[..., 0] + said.constant[:, tf.newaxis]
    mixed = (sums.says[..., 1] + said.popular[:, tf.newaxis] * sums.prior) / said.weight[:, tf.newaxis]
    return lift / tf.sqrt(said.number)[:, tf.newaxis], _log(mixed)


def _neighbours(asked: AskedQueries, sums: ItemSums) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Log shares of what was chosen under queries spelled alike [B, N], and the share used as a prior."""
    features, shares = [], []
    parts = tf.split(sums.alike, len(SHARPNESS), axis=-1)
    for counts, total in zip(parts, asked.near_totals, strict=True):
        share = _smoothed(counts, total, sums.prior[..., tf.newaxis], _NEIGHBOUR_PRIOR)
        features += [_log(column) for column in tf.unstack(share, axis=-1)]
        shares.append(share[..., PRIOR_AGE])
    return features, _SHARE[0] * shares[0] + _SHARE[1] * shares[1]


def _smoothed(counts: tf.Tensor, total: tf.Tensor, prior: tf.Tensor, strength: float) -> tf.Tensor:
    """Shares of counts [B, N, W], of `total` [B, W], after `strength` events spread as `prior` (Dirichlet)."""
    return (counts + strength * prior) / (total[:, tf.newaxis] + strength)


def _log(values: tf.Tensor) -> tf.Tensor:
    return tf.math.log(values + FLOOR)
