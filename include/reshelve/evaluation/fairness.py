"""Do groups fare alike? Demographic parity and equalized odds.

A row is an item that a ranker could have shown for a question: it was selected (among the first k) or not, it was
relevant or not, and belongs to a group: of the item (brand, seller) or of the customer. Today's events name no
group (`clickstream/events.py`), so the gate has nothing to pass in here; a source that brings one can call this.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from reshelve.examples.formats import HoldoutQuery


class Row(NamedTuple):
    """An item that could have been shown."""

    relevant: bool
    selected: bool
    group: str
    weight: float


@dataclass(frozen=True)
class Fairness:
    """Rates by group, and the greatest differences between two groups, in [0, 1]: 0 is alike."""

    selection: dict[str, float]
    true_positive: dict[str, float]  # groups with a relevant row
    false_positive: dict[str, float]  # groups with a row that is not
    demographic_parity: float
    equalized_odds: float


def rows(
    ranked: Sequence[Sequence[str]],
    queries: Sequence[HoldoutQuery],
    candidates: Collection[str],
    group: Callable[[HoldoutQuery, str], str],
    k: int,
) -> Iterator[Row]:
    """Every candidate of every question; `candidates` (the catalogue) for questions that name none."""
    for items, query in zip(ranked, queries, strict=True):
        shown = set(items[:k])
        for item in query.candidates or candidates:
            yield Row(item in query.relevant, item in shown, group(query, item), query.weight)


def fairness(found: Sequence[Row]) -> Fairness:
    """The rates and differences of at least one row.

    Demographic parity: the selection rates differ by (Dwork et al., 2012). Equalized odds: the greater of the
    differences in true and in false positive rates (Hardt et al., 2016).
    """
    relevant, selected, groups, weights = (np.array(column) for column in zip(*found, strict=True))

    def selected_of(inside: np.ndarray) -> dict[str, float]:
        """The weighted share that was selected, by group; groups with no row `inside` (bool[rows]) have none."""
        places = {str(group): inside & (groups == group) for group in np.unique(groups[inside])}
        return {
            group: float(np.average(selected[place], weights=weights[place]))
            for group, place in places.items()
        }

    selection = selected_of(np.ones(len(groups), dtype=bool))
    true = selected_of(relevant)
    false = selected_of(~relevant)
    return Fairness(selection, true, false, _spread(selection), max(_spread(true), _spread(false)))


def _spread(rates: dict[str, float]) -> float:
    return max(rates.values()) - min(rates.values()) if rates else 0.0
