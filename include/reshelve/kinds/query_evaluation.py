"""What the kinds that read a query have in common where they are counted: the query is the subject."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from reshelve.examples.queries import normalised

if TYPE_CHECKING:
    from reshelve.examples.event_counts import EventCounts
    from reshelve.examples.formats import HoldoutQuery

Keys = list[np.ndarray]  # float64[C], by the first, ties by the next
ByWords = Callable[["HoldoutQuery"], Keys]


class AsksQuery:
    """The query as customers typed it, whatever its case and spaces."""

    def subject(self, query: HoldoutQuery) -> str:
        return normalised(query.text)

    def familiar(self, past: EventCounts, queries: Sequence[HoldoutQuery]) -> Mapping[str, float]:
        return past.more_frequent("norm", {self.subject(query) for query in queries})

    def together(self, past: EventCounts) -> Callable[[HoldoutQuery, ByWords], Keys]:
        """Choices under this query, then by its words."""
        searches = past.searches()

        def keys(query: HoldoutQuery, by_words: ByWords) -> Keys:
            chosen = np.zeros(len(past.catalogue))
            for position, weight in searches.get(normalised(query.text), ()):
                chosen[position] = weight
            return [chosen, *by_words(query)]

        return keys
