"""How a next_item version is asked and counted: what is asked is the newest item of the history."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from reshelve.kinds.catalogue_evaluation import CatalogueEvaluation

if TYPE_CHECKING:
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
        together, catalogue = Together(past.baskets(), len(past.catalogue)), past.catalogue
        popularity = past.popularity()

        def keys(query: HoldoutQuery, by_words: ByWords) -> Keys:
            known = [catalogue.index[item] for item in query.history_items if item in catalogue.index]
            return [together.scores(known), popularity]

        return keys


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


FACET = NextItemEvaluation("history")
