"""Do groups fare alike? Demographic parity and equalized odds.

A candidate is an item that a ranker could have shown for a question: it was selected (among the first k) or not, it was
relevant or not, and belongs to a group: its category, or the segment of the customer who asked (`gates.group`).
The greatest difference between two groups is also the noisiest: a group that few questions tell of has no part in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from reshelve.examples.formats import HoldoutQuery
from reshelve.statistics.bootstrap import LEAST_CLUSTERS

UNKNOWN = "unknown"  # the group of what has none


@dataclass(frozen=True)
class Tally:
    """The candidates of one group, by weight; and the questions that had any, and any relevant one, with their clusters."""

    relevant: float = 0.0
    relevant_selected: float = 0.0
    other: float = 0.0
    other_selected: float = 0.0
    questions: int = 0
    clusters: int = 0
    relevant_questions: int = 0
    relevant_clusters: int = 0


@dataclass(frozen=True)
class Fairness:
    """Rates by group, and the greatest differences between two groups, in [0, 1]: 0 is alike, None where fewer than two compare.

    `too_few`: groups left out of a difference, with the questions that had a relevant candidate of theirs.
    """

    selection: dict[str, float]
    true_positive: dict[str, float]  # groups with a relevant candidate
    false_positive: dict[str, float]  # groups with one that is not
    demographic_parity: float | None
    equalized_odds: float | None
    too_few: dict[str, int]


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
    asked: dict[str, list[str]] = {}  # the cluster of each question with a candidate of the group
    sought: dict[str, list[str]] = {}  # and of each with a relevant one

    def add(place: int, query: HoldoutQuery, sizes: Mapping[str | None, int]) -> None:
        for group, size in sizes.items():
            name = (query.segment if category is None else group) or UNKNOWN
            found.setdefault(name, [0.0] * 4)[place] += query.weight * size

    def note(seen: dict[str, list[str]], query: HoldoutQuery, sizes: Mapping[str | None, int]) -> None:
        for name in {(query.segment if category is None else group) or UNKNOWN for group in sizes}:
            seen.setdefault(name, []).append(query.cluster)

    for items, query in zip(ranked, queries, strict=True):
        possible = frozenset(query.candidates) if query.candidates else listed
        all_of = _sizes(possible, category) if query.candidates else whole
        relevant = possible.intersection(query.relevant)
        shown = possible.intersection(items[:k])
        hits, misses = _sizes(relevant & shown, category), _sizes(shown - relevant, category)
        wanted = _sizes(relevant, category)
        add(0, query, wanted)
        add(1, query, hits)
        add(2, query, {group: size - wanted[group] for group, size in all_of.items()})
        add(3, query, misses)
        note(asked, query, all_of)
        note(sought, query, wanted)
    return {
        group: Tally(
            relevant=sums[0],
            relevant_selected=sums[1],
            other=sums[2],
            other_selected=sums[3],
            questions=len(asked.get(group, ())),
            clusters=len(set(asked.get(group, ()))),
            relevant_questions=len(sought.get(group, ())),
            relevant_clusters=len(set(sought.get(group, ()))),
        )
        for group, sums in sorted(found.items())
    }


def _sizes(items: Iterable[str], category: Mapping[str, str] | None) -> Counter[str | None]:
    """How many items of each category; without categories, all of them as None."""
    return Counter(None if category is None else category.get(item) for item in items)


def fairness(groups: Mapping[str, Tally], least: int, least_clusters: int = LEAST_CLUSTERS) -> Fairness:
    """The rates of all groups, and the differences of those with `least` questions out of `least_clusters` clusters.

    Demographic parity: the selection rates differ by (Dwork et al., 2012). Equalized odds: the greater of the
    differences in true and in false positive rates (Hardt et al., 2016); the true ones ask for questions with something relevant.
    """
    selection = _rates(
        {
            name: (group.relevant_selected + group.other_selected, group.relevant + group.other)
            for name, group in groups.items()
        }
    )
    true = _rates({name: (group.relevant_selected, group.relevant) for name, group in groups.items()})
    false = _rates({name: (group.other_selected, group.other) for name, group in groups.items()})
    asked = {
        name
        for name, group in groups.items()
        if group.questions >= least and group.clusters >= least_clusters
    }
    sought = {
        name
        for name, group in groups.items()
        if group.relevant_questions >= least and group.relevant_clusters >= least_clusters
    }
    odds = (_spread(true, sought), _spread(false, asked))
    return Fairness(
        selection,
        true,
        false,
        demographic_parity=_spread(selection, asked),
        equalized_odds=None if odds[0] is None or odds[1] is None else max(odds[0], odds[1]),
        too_few={
            name: group.relevant_questions for name, group in groups.items() if name not in asked & sought
        },
    )


def _rates(parts: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    return {name: selected / whole for name, (selected, whole) in parts.items() if whole > 0}


def _spread(rates: Mapping[str, float], enough: Collection[str]) -> float | None:
    compared = [rate for name, rate in rates.items() if name in enough]
    return max(compared) - min(compared) if len(compared) > 1 else None
