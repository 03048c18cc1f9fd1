"""How a next_item version is asked and counted: what is asked is the newest item of the history."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from reshelve.kinds.catalogue_evaluation import CatalogueEvaluation

if TYPE_CHECKING:
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
        together, catalogue = Together(past.baskets(), len(past.catalogue)), past.catalogue
        popularity = past.popularity()

        def keys(query: HoldoutQuery, by_words: ByWords) -> Keys:
            known = [catalogue.index[item] for item in query.history_items if item in catalogue.index]
            return [together.scores(known), popularity]

        return keys


class Together:
    """Item-item co-occurrence in baskets. Counts of the items asked for last are kept, as many as `cells` numbers."""

    def __init__(self, baskets: Sequence[np.ndarray], items: int, cells: int = _CELLS) -> None:
        self._baskets = baskets
        self._items, self._cells = items, cells
        self._of: dict[int, list[int]] = {}
        for number, basket in enumerate(baskets):
            for item in basket.tolist():
                self._of.setdefault(item, []).append(number)
        self._rows: OrderedDict[int, tuple[np.ndarray, np.ndarray]] = OrderedDict()
        self.kept = 0  # numbers in them

    def scores(self, items: Sequence[int]) -> np.ndarray:
        """float64[C]: baskets that hold both, summed over `items`."""
        found = np.zeros(self._items)
        for item in items:
            others, counts = self._row(item)
            found[others] += counts
        return found

    def _row(self, item: int) -> tuple[np.ndarray, np.ndarray]:
        """The items that a basket holds with `item`, each once, and how many baskets do."""
        if item in self._rows:
            self._rows.move_to_end(item)
            return self._rows[item]
        shared = [self._baskets[number] for number in self._of.get(item, ())]
        together = np.concatenate(shared) if shared else np.empty(0, dtype=np.int64)
        others, counts = np.unique(together[together != item], return_counts=True)
        # Every basket with it holds it itself: that says nothing.
        self._rows[item] = others, counts
        self.kept += len(others)
        while self.kept > self._cells and len(self._rows) > 1:
            _, (dropped, _) = self._rows.popitem(last=False)
            self.kept -= len(dropped)
        return others, counts


FACET = NextItemEvaluation("history")
