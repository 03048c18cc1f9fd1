"""What a model must be better than: popularity, what was chosen together, and words in common.

Each is a score per catalogue item, known when the holdout began, and ranks the same candidates as the model.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np

from reshelve.examples.catalogue import Catalogue
from reshelve.examples.formats import HoldoutQuery
from reshelve.examples.past import Past
from reshelve.examples.queries import normalised
from reshelve.examples.titles import TextIndex
from reshelve.rankers import Kind

BaselineName = Literal["popularity", "bm25", "cooccurrence"]
BASELINES: tuple[BaselineName, ...] = ("popularity", "bm25", "cooccurrence")


class Baselines:
    """The three baselines over one `Past`. Without `repeat` they leave out what the history holds, as the model does."""

    def __init__(self, past: Past, kind: Kind, repeat: bool = True) -> None:
        self._repeat = repeat
        self.catalogue = past.catalogue
        self._titles = TextIndex(past.catalogue.titles)
        self._popularity = past.popularity()
        if kind is not Kind.NEXT_ITEM:
            self._searches = past.searches()
        else:
            self._together = Together(past.baskets(), len(past.catalogue))
        self._kind = kind

    def rank(self, name: BaselineName, query: HoldoutQuery, depth: int) -> list[str]:
        """The best `depth` candidates of a query, best first."""
        keys = {"popularity": self._by_popularity, "bm25": self._by_words, "cooccurrence": self._by_choices}
        held = () if self._repeat else query.history_items
        return rank(self.catalogue, keys[name](query), query.candidates, depth, held)

    def _by_popularity(self, query: HoldoutQuery) -> list[np.ndarray]:
        """Weight of the last seven days' events."""
        return [self._popularity]

    def _by_words(self, query: HoldoutQuery) -> list[np.ndarray]:
        """BM25 of the text on the titles, then popularity."""
        return [self._titles.scores(query.text), self._popularity]

    def _by_choices(self, query: HoldoutQuery) -> list[np.ndarray]:
        """next_item: baskets shared with the history; else: choices under this query, then BM25. Then popularity."""
        if self._kind is Kind.NEXT_ITEM:
            known = [
                self.catalogue.index[item] for item in query.history_items if item in self.catalogue.index
            ]
            return [self._together.scores(known), self._popularity]
        chosen = np.zeros(len(self.catalogue))
        for position, weight in self._searches.get(normalised(query.text), ()):
            chosen[position] = weight
        return [chosen, *self._by_words(query)]


class Together:
    """Item-item co-occurrence in baskets."""

    def __init__(self, baskets: Sequence[np.ndarray], items: int) -> None:
        self._baskets = baskets
        self._items = items
        self._of: dict[int, list[int]] = {}
        for number, basket in enumerate(baskets):
            for item in basket.tolist():
                self._of.setdefault(item, []).append(number)
        self._rows: dict[int, np.ndarray] = {}

    def scores(self, items: Sequence[int]) -> np.ndarray:
        """float64[C]: baskets that hold both, summed over `items`."""
        return sum((self._row(item) for item in items), np.zeros(self._items))

    def _row(self, item: int) -> np.ndarray:
        if item not in self._rows:
            shared = [self._baskets[number] for number in self._of.get(item, ())]
            together = np.concatenate(shared) if shared else np.empty(0, dtype=np.int64)
            counts = np.bincount(together, minlength=self._items).astype(np.float64)
            counts[item] = 0  # every basket with it holds it: that says nothing
            self._rows[item] = counts
        return self._rows[item]


def rank(
    catalogue: Catalogue,
    keys: Sequence[np.ndarray],
    candidates: Sequence[str],
    depth: int,
    without: Collection[str] = (),
) -> list[str]:
    """The best `depth` of `candidates` (empty: of the catalogue) by the first key, ties by the next, then by item id.

    What is in `without` is no candidate.

    The last keeps a list's own order from deciding: a shortlist begins with the likeliest.
    """
    positions = np.array([catalogue.index[item] for item in candidates], dtype=np.int64)
    if not len(positions):
        positions = np.arange(len(catalogue))
    held = [catalogue.index[item] for item in without if item in catalogue.index]
    if held:
        positions = np.setdiff1d(positions, held)
    order = np.lexsort([catalogue.places[positions], *(-key[positions] for key in reversed(keys))])
    return [catalogue.items[position] for position in positions[order[:depth]]]
