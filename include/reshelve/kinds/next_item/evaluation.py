"""How a next_item version is asked and counted: what is asked is the newest item of the history."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from reshelve.kinds.catalogue_evaluation import CatalogueEvaluation

if TYPE_CHECKING:
    from scipy import sparse

    from reshelve.examples.event_counts import EventCounts
    from reshelve.examples.formats import HoldoutQuery
    from reshelve.kinds.query_evaluation import ByWords, Keys

_CELLS = 4_000_000  # of 16 bytes


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
    """Item-item co-occurrence in baskets. Counts of the items asked for last are kept, as many as `cells` numbers."""

    def __init__(self, baskets: sparse.csr_matrix, cells: int = _CELLS) -> None:
        self._baskets, self._of, self._cells = baskets, baskets.tocsc(), cells
        self._rows: OrderedDict[int, tuple[np.ndarray, np.ndarray]] = OrderedDict()
        self.kept = 0  # numbers in them

    def scores(self, items: Sequence[int]) -> np.ndarray:
        """float64[C]: baskets that hold both, summed over `items`."""
        scores = np.zeros(self._baskets.shape[1])
        for item in items:
            others, counts = self._row(item)
            scores[others] += counts
        return scores

    def _row(self, item: int) -> tuple[np.ndarray, np.ndarray]:
        """The items of its baskets, and how many of them hold each."""
        if item in self._rows:
            self._rows.move_to_end(item)
            return self._rows[item]
        holding = self._of.indices[self._of.indptr[item] : self._of.indptr[item + 1]]
        others, counts = np.unique(self._baskets[holding].indices, return_counts=True)
        own = others == item  # every basket with it holds it: that says nothing
        self._rows[item] = others[~own], counts[~own]
        self.kept += int(np.count_nonzero(~own))
        while self.kept > self._cells and len(self._rows) > 1:
            _, (dropped, _) = self._rows.popitem(last=False)
            self.kept -= len(dropped)
        return others[~own], counts[~own]


FACET = NextItemEvaluation("history")
