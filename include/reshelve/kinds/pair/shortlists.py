"""Some forty candidates for a query, drawn from what was known before: the pair model orders them.

Four sources, the surest first: items chosen under this query before, under queries spelled alike, titles that share
a word, and what is popular. The right answer is not added where all four miss it: a miss is a miss at the gate too.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from reshelve.examples.event_counts import EventCounts
from reshelve.examples.queries import normalised
from reshelve.examples.titles import TextIndex, trigrams
from reshelve.statistics.order import first_of

SIZE = 40
_SAME_QUERY = 12
_SIMILAR_QUERIES = 8
_PER_SIMILAR_QUERY = 4
_TITLES = 14


class Shortlists:
    """Candidates out of one `Past`."""

    def __init__(self, past: EventCounts) -> None:
        self._past = past
        self._titles = TextIndex(past.catalogue.titles)
        self._searches = past.searches()
        self._queries = list(self._searches)
        self._spellings = TextIndex(self._queries, trigrams)

    def of(self, query: str) -> list[str]:
        """At most SIZE item ids of the catalogue, each once."""
        found: dict[int, None] = {}
        for position in self._candidates(query):
            found.setdefault(position)
            if len(found) == SIZE:
                break
        return [self._past.catalogue.items[position] for position in found]

    def _candidates(self, query: str) -> Iterator[int]:
        yield from self._chosen(normalised(query), _SAME_QUERY)
        for position in self._spellings.nearest(query, _SIMILAR_QUERIES):
            yield from self._chosen(self._queries[position], _PER_SIMILAR_QUERY)
        yield from self._titles.nearest(query, _TITLES)
        yield from self._popular

    def _chosen(self, norm: str, limit: int) -> list[int]:
        weighted = sorted(self._searches.get(norm, ()), key=lambda found: (-found[1], found[0]))
        return [position for position, _ in weighted[:limit]]

    @cached_property
    def _popular(self) -> list[int]:
        return [int(position) for position in first_of([-self._past.popularity()], SIZE)]
