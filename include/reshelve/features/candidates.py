"""Which items of a large catalogue are looked at for a query: TensorFlow alone.

From behaviour: what was chosen under the very query, under those spelled alike, and what its n-grams say. From text: titles
with its words, by BM25 and by how many of them they hold, and titles spelled alike, by the n-grams that are not in a large
part of all titles; this alone sums over all items, a number each. And what is popular. Then an even sample of the whole
catalogue: it says how likely all those together are that nobody looks at, so that a score stays a share of the whole
catalogue however many candidates there are (importance sampling: Bengio and Senécal, Quick Training of Probabilistic Neural Nets by
Importance Sampling, 2003).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from reshelve.features.asked import AskedQueries
from reshelve.features.evidence import NamedEvidence, NamedSums
from reshelve.features.grams import tells
from reshelve.features.graph_tables import numbers
from reshelve.features.postings import Postings, PostingsTable
from reshelve.features.tables import HALF_LIVES, PRIOR_AGE, SearchTables

# Of the candidates, in sixteenths; what a source does not fill is left empty.
_PARTS = {"own": 2, "near": 2, "said": 3, "bm25": 2, "covered": 2, "cosine": 3, "popular": 1, "sample": 1}
SAID_ITEMS = 64  # of an n-gram: those of which it says most
_TIE = 1e-3  # of the log popularity, among titles that the words fit equally
_POPULAR = 0.05  # of the log popularity, among titles that hold as many of the words

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
        self.most = {name: most * part // 16 for name, part in _PARTS.items()}
        self.most["popular"] = max(self.most["popular"], least)
        self.said = PostingsTable(tables.says.first(SAID_ITEMS, tables.says.weights[:, 1]))
        self.titles = PostingsTable(_telling(tables))
        self.title = numbers(tables.title)
        self.log_prior = numbers(np.log(tables.popularity).astype(np.float32))
        popular = np.argsort(-tables.popularity, kind="stable")[: self.most["popular"]]
        drawn = np.random.default_rng(seed).permutation(self.items)[: self.most["sample"]]
        self.popular, self.sample = (numbers(np.sort(found).astype(np.int32)) for found in (popular, drawn))

    def search(self, asked: AskedQueries, found: NamedSums) -> Candidates:
        """Each item once, whoever brings it."""
        count, width = asked.count, len(HALF_LIVES)
        own, near = found.own, found.near
        said = self.said.sparse(asked.grams.rows, asked.grams.ids, tf.ones_like(asked.grams.idf))
        looked_at = [
            own.greatest(own.values[:, PRIOR_AGE], count, self.most["own"]),
            near.greatest(near.values[:, width + PRIOR_AGE], count, self.most["near"]),
            said.greatest(said.values[:, 1], count, self.most["said"]),
            *self._of_text(asked),
            tf.tile(self.popular[tf.newaxis], [count, 1]),
        ]
        return self._merged(tf.concat(looked_at, axis=1), tf.tile(self.sample[tf.newaxis], [count, 1]))

    def _of_text(self, asked: AskedQueries) -> list[tf.Tensor]:
        """The best titles by BM25, by how much of the query's words they hold, and by spelling."""
        grams, amounts = asked.grams, tf.gather(asked.grams.amounts, [0, 2], axis=1)
        alike, held = tf.unstack(self.titles.spread(grams.rows, grams.ids, amounts, asked.count), axis=-1)
        by = {
            "bm25": (held, held * self.title[:, 1] + _TIE * self.log_prior),
            "covered": (held, held / grams.words[:, tf.newaxis] + _POPULAR * self.log_prior),
            "cosine": (alike, alike * self.title[:, 0]),
        }
        return [self._best(scores, shared, self.most[name]) for name, (shared, scores) in by.items()]

    def _best(self, scores: tf.Tensor, shared: tf.Tensor, most: int) -> tf.Tensor:
        found, place = tf.math.top_k(tf.where(shared > 0, scores, NEVER), min(most, self.items))
        return tf.where(found > NEVER / 2, place, self.items)

    def _merged(self, looked_at: tf.Tensor, sample: tf.Tensor) -> Candidates:
        """Sorted; of an item that is there twice the first counts, and one that is looked at stands for itself alone."""
        marked = tf.sort(tf.concat([2 * looked_at, 2 * sample + 1], axis=1), axis=1)
        places, sampled = marked // 2, marked % 2
        before = tf.pad(places[:, :-1], [[0, 0], [1, 0]], constant_values=-1)
        valid = (places < self.items) & (places != before)
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


def _telling(tables: SearchTables) -> Postings:
    """gram → items, of words and of the n-grams that few titles share."""
    titles = tables.titles
    often = np.bincount(titles.columns, minlength=titles.width).tolist()
    items = len(tables.popularity)
    telling = (tells(gram, n, items) for gram, n in zip(tables.grams, often, strict=True))
    return titles.only(np.fromiter(telling, bool, titles.width)).transposed()
