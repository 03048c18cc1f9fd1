"""How a next_item version is asked and counted: what is asked is the newest item of the history."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from reshelve.kinds.catalogue_evaluation import CatalogueEvaluation

if TYPE_CHECKING:
    from scipy import sparse

    from reshelve.examples.event_counts import EventCounts
    from reshelve.examples.formats import HoldoutQuery
    from reshelve.kinds.query_evaluation import ByWords, Keys


class NextItemEvaluation(CatalogueEvaluation):
    """The best of the catalogue for a history."""

    def subject(self, query: HoldoutQuery) -> str:
        return query.history_items[0] if query.history_items else ""

    def familiar(self, past: EventCounts, queries: Sequence[HoldoutQuery]) -> Mapping[str, float]:
        return past.more_frequent("item_id")

    def together(self, past: EventCounts) -> Callable[[HoldoutQuery, ByWords], Keys]:
        """Baskets shared with the history, then popularity."""
        together, catalogue = Together(past.baskets()), past.catalogue
        popularity = past.popularity()

        def keys(query: HoldoutQuery, by_words: ByWords) -> Keys:
            known = [catalogue.index[item] for item in query.history_items if item in catalogue.index]
            return [together.scores(known), popularity]

        return keys


class Together:
    """Item-item co-occurrence in baskets."""

    def __init__(self, baskets: sparse.csr_matrix) -> None:
        self._baskets, self._of = baskets, baskets.tocsc()
        self._rows: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def scores(self, items: Sequence[int]) -> np.ndarray:
        """float64[C]: baskets that hold both, summed over `items`."""
        scores = np.zeros(self._baskets.shape[1])
        for item in items:
            others, counts = self._row(item)
            scores[others] += counts
        return scores

    def _row(self, item: int) -> tuple[np.ndarray, np.ndarray]:
        """The items of its baskets, and how many of them hold each."""
        if item not in self._rows:
            holding = self._of.indices[self._of.indptr[item] : self._of.indptr[item + 1]]
            others, counts = np.unique(self._baskets[holding].indices, return_counts=True)
            own = others == item  # every basket with it holds it: that says nothing
            self._rows[item] = others[~own], counts[~own]
        return self._rows[item]


FACET = NextItemEvaluation("history")
