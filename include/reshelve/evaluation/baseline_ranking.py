"""Held-out questions ranked by the baselines, over what was counted before the holdout."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from reshelve.evaluation.baselines import baselines
from reshelve.examples.catalogue import Catalogue
from reshelve.examples.event_counts import EventCounts
from reshelve.examples.formats import HoldoutQuery
from reshelve.examples.titles import TextIndex
from reshelve.kind_registry import kind_of
from reshelve.statistics.order import first_of


class CountedPast:
    """What a baseline may ask: counts over events before the holdout, as float64[C] over the catalogue. Each is made when it is first asked for."""

    def __init__(self, counts: EventCounts, kind: str) -> None:
        self.counts, self.kind, self.catalogue = counts, kind, counts.catalogue

    @cached_property
    def popularity(self) -> np.ndarray:
        """Weight of the last seven days' events."""
        return self.counts.popularity()

    def title_scores(self, text: str) -> np.ndarray:
        """BM25 of a text on the titles."""
        return self._titles.scores(text)

    def together(self, query: HoldoutQuery) -> list[np.ndarray]:
        """What was chosen together with what `query` asks, as the kind counts it; ties are broken by the next."""
        found: list[np.ndarray] = self._together(query, self._by_words)
        return found

    def _by_words(self, query: HoldoutQuery) -> list[np.ndarray]:
        return [self.title_scores(query.text), self.popularity]

    @cached_property
    def _titles(self) -> TextIndex:
        return TextIndex(self.catalogue.titles)

    @cached_property
    def _together(self) -> Any:
        return kind_of(self.kind).evaluation.together(self.counts)


class Baselines:
    """The baselines of a kind over one past. Without `repeat` they leave out what the history holds, as the model does."""

    def __init__(self, counts: EventCounts, kind: str, repeat: bool = True) -> None:
        self._repeat = repeat
        self.catalogue = counts.catalogue
        self._past = CountedPast(counts, kind)
        self._known = {each.name: each for each in baselines(kind)}

    @property
    def names(self) -> tuple[str, ...]:
        """By what `rank` calls them."""
        return tuple(self._known)

    def rank(self, name: str, query: HoldoutQuery, depth: int) -> list[str]:
        """The best `depth` candidates of a query, best first."""
        scores = self._known[name].scores(self._past, query)
        held = () if self._repeat else query.history_items
        return rank(self.catalogue, scores, query.candidates, depth, held)


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
    best = first_of([*(-key[positions] for key in keys), catalogue.places[positions]], depth)
    return [catalogue.items[position] for position in positions[best]]
