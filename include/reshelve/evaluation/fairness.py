"""Do groups fare alike? Demographic parity and equalized odds.

A candidate is an item that a ranker could have shown for a question: it was selected (among the first k) or not, it was
relevant or not, and belongs to a group: its category, or the segment of the customer who asked (`gates.group`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from reshelve.examples.formats import HoldoutQuery

UNKNOWN = "unknown"  # the group of what has none


@dataclass(frozen=True)
class Tally:
    """The candidates of one group, by weight."""

    relevant: float = 0.0
    relevant_selected: float = 0.0
    other: float = 0.0
    other_selected: float = 0.0


@dataclass(frozen=True)
class Fairness:
    """Rates by group, and the greatest differences between two groups, in [0, 1]: 0 is alike."""

    selection: dict[str, float]
    true_positive: dict[str, float]  # groups with a relevant candidate
    false_positive: dict[str, float]  # groups with one that is not
    demographic_parity: float
    equalized_odds: float


def tally(
    ranked: Sequence[Sequence[str]],
    queries: Sequence[HoldoutQuery],
    candidates: Sequence[str],
    k: int,
    category: Mapping[str, str] | None = None,
) -> dict[str, Tally]:
    """Every candidate of every question, by group; `candidates` (the catalogue) for questions that name none.

    Groups are those of `category`, by item; without it the segments of the questions. The cost is that of the lists and
    the questions' own candidates: the catalogue is counted once.
    """
    listed = frozenset(candidates)
    whole = _sizes(listed, category)
    found: dict[str, list[float]] = {}

    def add(place: int, weight: float, sizes: Mapping[str | None, int], segment: str | None) -> None:
        for group, size in sizes.items():
            name = (segment if category is None else group) or UNKNOWN
            found.setdefault(name, [0.0] * 4)[place] += weight * size

    for items, query in zip(ranked, queries, strict=True):
        possible = frozenset(query.candidates) if query.candidates else listed
        all_of = _sizes(possible, category) if query.candidates else whole
        relevant = possible.intersection(query.relevant)
        shown = possible.intersection(items[:k])
        hits, misses = _sizes(relevant & shown, category), _sizes(shown - relevant, category)
        wanted = _sizes(relevant, category)
        add(0, query.weight, wanted, query.segment)
        add(1, query.weight, hits, query.segment)
        add(2, query.weight, {group: size - wanted[group] for group, size in all_of.items()}, query.segment)
        add(3, query.weight, misses, query.segment)
    return {group: Tally(*sums) for group, sums in sorted(found.items())}


def _sizes(items: Iterable[str], category: Mapping[str, str] | None) -> Counter[str | None]:
    """How many items of each category; without categories, all of them as None."""
    return Counter(None if category is None else category.get(item) for item in items)


def fairness(groups: Mapping[str, Tally]) -> Fairness:
    """The rates and differences of the groups.

    Demographic parity: the selection rates differ by (Dwork et al., 2012). Equalized odds: the greater of the
    differences in true and in false positive rates (Hardt et al., 2016).
    """
    selection = _rates(
        {
            name: (group.relevant_selected + group.other_selected, group.relevant + group.other)
            for name, group in groups.items()
        }
    )
    true = _rates({name: (group.relevant_selected, group.relevant) for name, group in groups.items()})
    false = _rates({name: (group.other_selected, group.other) for name, group in groups.items()})
    return Fairness(selection, true, false, _spread(selection), max(_spread(true), _spread(false)))


def _rates(parts: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    return {name: selected / whole for name, (selected, whole) in parts.items() if whole > 0}


def _spread(rates: dict[str, float]) -> float:
    return max(rates.values()) - min(rates.values()) if rates else 0.0
