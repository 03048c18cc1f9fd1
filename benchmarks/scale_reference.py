"""The exhaustive answer of a search version, computed offline with numpy: every item, in blocks, from the version's tables.

The same features and formulas as `features.evidence` had when every item was asked for every query: what a version finds is
compared with this. Memory: some twenty numbers for each item, and the features of one block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scale_internals import Cut, Memory, Rows

from reshelve.features.blend import Blend

Array = np.ndarray

BLOCK = 50_000  # items whose features are in memory at once: 7 MB
_NEIGHBOURS, _ALIKE, _SHARPNESS = 64, 0.25, (3.0, 8.0)
_NEIGHBOUR_PRIOR, _CHOSEN_PRIOR, _FLOOR = 1.0, 3.0, 1e-7
_PRIOR_AGE = 2
_CLIP = 8.0
_IDF, _CONSTANT, _WEIGHT, _POPULAR, _ASKED, _IS_WORD = range(6)  # of `Memory.gram`


@dataclass(frozen=True)
class _Query:
    """What is known of one query: of each item [C] per feature, and of the query alone."""

    of_both: list[Array]
    likely: Array
    neighbours: list[_Counts]
    chosen: _Counts
    of_query: list[float]


class _Counts:
    """Decayed counts of each item [C, H], and their sums [H]."""

    def __init__(self, of_items: Array) -> None:
        self.of_items, self.total = of_items, of_items.sum(0)

    def log_share(self, here: slice, prior: Array, strength: float) -> Array:
        """Of the items `here`, after `strength` more events that are spread as their `prior` [n, 1]."""
        return np.log((self.of_items[here] + strength * prior) / (self.total + strength) + _FLOOR)


class Exhaustive:
    """All items of a memory, for the queries of `cut`."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.items = len(memory.popularity)
        self.key_place = {key: place for place, key in enumerate(memory.keys)}
        self.gram_place = {gram: place for place, gram in enumerate(memory.grams)}

    def features(self, asked: Cut, query: int, block: int = BLOCK) -> Iterator[tuple[slice, Array]]:
        """float32 [n, F] of each block of items, in order."""
        known = self._query(asked, query)
        everywhere = np.array(known.of_query, np.float32)
        for start in range(0, self.items, block):
            here = slice(start, min(start + block, self.items))
            columns = [self.memory.item[here], *(column[here, None] for column in known.of_both)]
            for counts in known.neighbours:
                prior = self.memory.popularity[here, None]
                columns.append(counts.log_share(here, prior, _NEIGHBOUR_PRIOR))
            columns.append(known.chosen.log_share(here, known.likely[here, None], _CHOSEN_PRIOR))
            columns.append(np.log1p(known.chosen.of_items[here, :1]))
            columns.append(np.broadcast_to(everywhere, (here.stop - start, len(everywhere))))
            yield here, np.concatenate(columns, axis=1, dtype=np.float32)

    def scores(self, asked: Cut, query: int, blend: Blend, block: int = BLOCK) -> Array:
        """float32 [C] of the blend, whose last feature, the encoder's, has no weight."""
        found = np.empty(self.items, np.float32)
        for here, features in self.features(asked, query, block):
            found[here] = blended(blend, np.pad(features, ((0, 0), (0, 1))))
        return found

    def _query(self, asked: Cut, query: int) -> _Query:
        memory = self.memory
        grams, words = asked.grams[query], asked.words[query]
        found = [self.gram_place.get(gram, -1) for gram in grams]
        ids = np.array(sorted({place for place in found if place >= 0}), np.int64)
        unseen = memory.idf_unseen * sum(place < 0 for place in found)
        unseen_words = memory.idf_unseen * sum(p < 0 and w for p, w in zip(found, words, strict=True))
        about = memory.gram[ids].astype(np.float64)
        idf = about[:, _IDF]
        length = np.sqrt((idf**2).sum() + unseen * memory.idf_unseen) + _FLOOR
        total = idf.sum() + unseen + _FLOOR
        of_words = (idf * about[:, _IS_WORD]).sum() + unseen_words + _FLOOR
        ones = np.ones(len(ids))
        cosine = _spread(memory.titles, ids, idf, self.items, [0])[:, 0] / length
        contains, bm25, covered = _spread(memory.titles, ids, ones, self.items, [1, 2, 3]).T
        similar = _spread(memory.alike, ids, idf, len(memory.keys))[:, 0] / length
        counts, likely = self._neighbours(similar)
        key = self.key_place.get(asked.keys[query])
        keys = np.array([] if key is None else [key], np.int64)
        chosen = _Counts(_spread(memory.chosen, keys, np.ones(len(keys)), self.items))
        of_query = [*np.log1p(chosen.total), similar.max() if len(similar) else 0.0]
        of_query += [-(likely * np.log(likely + _FLOOR)).sum()]
        of_query += [np.log1p(asked.lengths[query]), np.log1p(asked.counts[query])]
        return _Query(
            [cosine, contains / total, bm25, covered / of_words, *self._say(ids, about)],
            likely, counts, chosen, [float(number) for number in of_query],
        )  # fmt: skip

    def _say(self, ids: Array, about: Array) -> tuple[Array, Array]:
        says = _spread(self.memory.says, ids, np.ones(len(ids)), self.items)
        number = max(about[:, _ASKED].sum(), 1.0)
        popular = (about[:, _POPULAR].sum() + _FLOOR) * self.memory.popularity
        mixed = (says[:, 1] + popular) / (about[:, _WEIGHT].sum() + _FLOOR)
        return (says[:, 0] + about[:, _CONSTANT].sum()) / np.sqrt(number), np.log(mixed + _FLOOR)

    def _neighbours(self, similar: Array) -> tuple[list[_Counts], Array]:
        """Counts under the queries spelled alike, for each sharpness, and the share used as a prior [C]."""
        near = np.argsort(-similar.astype(np.float32), kind="stable")[:_NEIGHBOURS]
        found = similar[near]
        counts, shares = [], []
        for power in _SHARPNESS:
            amounts = np.where(found < _ALIKE, 0.0, found**power)
            counts.append(_Counts(_spread(self.memory.chosen, near, amounts, self.items)))
            recent = counts[-1].of_items[:, _PRIOR_AGE] + _NEIGHBOUR_PRIOR * self.memory.popularity
            shares.append(recent / (counts[-1].total[_PRIOR_AGE] + _NEIGHBOUR_PRIOR))
        return counts, 0.3 * shares[0] + 0.7 * shares[1]


def best(scores: Array, count: int) -> Array:
    """Places of the greatest, best first; of equal ones the first, as `top_k` has it."""
    count = min(count, len(scores))
    least = np.partition(scores, len(scores) - count)[len(scores) - count]
    places = np.flatnonzero(scores >= least)
    return places[np.argsort(-scores[places], kind="stable")][:count]


def blended(blend: Blend, features: Array) -> Array:
    """`Blend.scores` in numpy: [n, F] → [n]."""
    x = np.clip((features - blend.mean) / blend.deviation, -_CLIP, _CLIP).astype(np.float32)
    inner = x @ blend.hidden + blend.bias
    return np.asarray(x @ blend.linear + (inner / (1 + np.exp(-inner))) @ blend.output)


def _spread(table: Rows, keys: Array, amounts: Array, width: int, weights: list[int] | None = None) -> Array:
    """Sum of amount · weights over all places that the keys lead to: [width, W]."""
    lengths = table.starts[keys + 1] - table.starts[keys]
    first = np.cumsum(lengths) - lengths
    places = np.arange(int(lengths.sum())) + np.repeat(table.starts[keys] - first, lengths)
    columns, times = table.columns[places], np.repeat(amounts, lengths)
    chosen = range(table.weights.shape[1]) if weights is None else weights
    return np.stack(
        [np.bincount(columns, table.weights[places, number] * times, width) for number in chosen], axis=1
    )
