"""Which items of a large catalogue are looked at for a query: TensorFlow alone.

From behaviour: what was chosen under the very query, under those spelled alike, and what its n-grams say. From text: titles
with its words, by BM25 and by how many of them they hold, and titles spelled alike (`features.title_search`). And what is
popular. Then an even sample of the whole catalogue: it says how likely all those together are that nobody looks at, so that a
score stays a share of the whole catalogue however many candidates there are (importance sampling: Bengio and Senécal, Quick
Training of Probabilistic Neural Nets by Importance Sampling, 2003).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from reshelve.features.asked import AskedQueries
from reshelve.features.evidence import NamedEvidence, NamedSums
from reshelve.features.graph_tables import numbers
from reshelve.features.postings import PostingsTable
from reshelve.features.tables import HALF_LIVES, PRIOR_AGE, SearchTables
from reshelve.features.title_search import TitleSearch

# What each source may bring at most, in sixteenths of the candidates, and how many turns it has while they are filled: more is
# brought than there is room for, so that what one source lacks, or another has brought already, is room for the others.
_MOST = {"own": 4, "near": 4, "said": 4, "bm25": 10, "covered": 8, "cosine": 12, "popular": 1}
_TURNS = {"own": 2, "near": 2, "said": 3, "bm25": 3, "covered": 2, "cosine": 4, "popular": 1}
_SAMPLE = 1  # in sixteenths of the candidates
SAID_ITEMS = 64  # of an n-gram: those of which it says most

NEVER = -1e9
_NARROWED = 4  # times as many items as candidates: below, to look at all of them is quicker


def narrows(items: int, most: int) -> bool:
    """Whether a catalogue of `items` is answered from `most` candidates."""
    return items > _NARROWED * most


class Candidates(NamedTuple):
    """Places of the catalogue [B, N], each once a row; and the log of how many items each stands for [B, N].

    That is 0 of a candidate, and of one of the sample the log of how many that nobody looks at it stands for; NEVER where
    there is none (its place is 0 then).
    """

    places: tf.Tensor
    stands_for: tf.Tensor


class CandidateSearch(tf.Module):
    """`search`: what was asked → Candidates. `most`: about N, at least 16; `least`: so many are always there, and N is the larger for them."""

    def __init__(self, tables: SearchTables, most: int, least: int = 1, seed: int = 0) -> None:
        super().__init__()
        self.items = len(tables.popularity)
        self.most = {name: most * part // 16 for name, part in _MOST.items()}
        self.most["popular"] = max(self.most["popular"], least)
        sampled = most * _SAMPLE // 16
        self.looked_at = max(most - sampled, least)
        self.said = PostingsTable(tables.says.first(SAID_ITEMS, tables.says.weights[:, 1]))
        self.titles = TitleSearch(tables)
        popular = np.argsort(-tables.popularity, kind="stable")[: self.most["popular"]]
        drawn = np.random.default_rng(seed).permutation(self.items)[:sampled]
        self.popular, self.sample = (numbers(found.astype(np.int32)) for found in (popular, drawn))

    def search(self, asked: AskedQueries, found: NamedSums) -> Candidates:
        """Each item once, whoever brings it."""
        count, width = asked.count, len(HALF_LIVES)
        own, near = found.own, found.near
        said = self.said.sparse(asked.grams.rows, asked.grams.ids, tf.ones_like(asked.grams.idf))
        brought = {
            "own": own.greatest(own.values[:, PRIOR_AGE], count, self.most["own"]),
            "near": near.greatest(near.values[:, width + PRIOR_AGE], count, self.most["near"]),
            "said": said.greatest(said.values[:, 1], count, self.most["said"]),
            **self.titles.best(asked, self.most),
            "popular": tf.tile(self.popular[tf.newaxis], [count, 1]),
        }
        return self._merged(self._filled(brought), tf.tile(self.sample[tf.newaxis], [count, 1]))

    def _filled(self, brought: dict[str, tf.Tensor]) -> tf.Tensor:
        """Places int32 [B, looked_at]: of what the sources brought, best first, in turns; `items` where there are fewer."""
        turns = [(np.arange(found.shape[1]) + 1) / _TURNS[name] for name, found in brought.items()]
        order = np.argsort(np.concatenate(turns), kind="stable").astype(np.int32)
        places = tf.gather(tf.concat(list(brought.values()), axis=1), order, axis=1)
        # Sorted by place and turn: the first of a place is the one that counts.
        width = len(order)
        marked = tf.sort(tf.cast(places, tf.int64) * width + tf.range(width, dtype=tf.int64), axis=1)
        place, turn = tf.cast(marked // width, tf.int32), tf.cast(marked % width, tf.int32)
        valid = (place < self.items) & (place != _before(place))
        found, at = tf.math.top_k(tf.where(valid, -turn, -width), min(self.looked_at, width))
        return tf.where(found > -width, tf.gather(place, at, batch_dims=1), self.items)

    def _merged(self, looked_at: tf.Tensor, sample: tf.Tensor) -> Candidates:
        """Sorted; one that is looked at stands for itself alone, sampled or not."""
        marked = tf.sort(tf.concat([2 * looked_at, 2 * sample + 1], axis=1), axis=1)
        places, sampled = marked // 2, marked % 2
        valid = (places < self.items) & (places != _before(places))
        of_sample = valid & (sampled == 1)
        drawn = tf.reduce_sum(tf.cast(of_sample, tf.float32), axis=1)
        looked = tf.reduce_sum(tf.cast(valid & (sampled == 0), tf.float32), axis=1)
        each = tf.math.log(tf.maximum(self.items - looked, 1.0) / tf.maximum(drawn, 1.0))
        weight = tf.where(of_sample, each[:, tf.newaxis], 0.0)
        return Candidates(tf.where(valid, places, 0), tf.where(valid, weight, NEVER))


class CandidateEvidence(tf.Module):
    """`features`: string queries [B] → Candidates [B, N] and float32 [B, N, F]."""

    def __init__(self, tables: SearchTables, most: int, least: int = 1) -> None:
        super().__init__()
        self.evidence = NamedEvidence(tables)
        self.candidates = CandidateSearch(tables, most, least)
        self.items = self.evidence.items

    def features(self, queries: tf.Tensor) -> tuple[Candidates, tf.Tensor]:
        """Finite for every query."""
        asked, found = self.evidence.read(queries)
        candidates = self.candidates.search(asked, found)
        return candidates, self.evidence.features(asked, found, candidates.places)


def _before(places: tf.Tensor) -> tf.Tensor:
    """Of each the one to its left [B, N]; -1 of the first."""
    return tf.pad(places[:, :-1], [[0, 0], [1, 0]], constant_values=-1)
