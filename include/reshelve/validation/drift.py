"""How far a day's distribution is from the trailing days': their bins, for the population stability index."""

from __future__ import annotations

import math

from reshelve.statistics.stability import Stability, population_stability
from reshelve.validation.profile import place

_BINS = 10


def stability(today: dict[str, int], before: dict[str, int]) -> Stability:
    """The index of two histograms with the same bins; both must have rows.

    Numbers are pooled into tenths of the reference; texts and hours stay as they are.
    """
    groups = _tenths(before) if any(name[0] in "+-" for name in before) else {name: name for name in before}
    ends = sorted(groups, key=place)
    counts: dict[str, list[int]] = {}
    for side, histogram in enumerate((today, before)):
        for name, count in histogram.items():
            group = groups.get(name) or _nearest(name, ends, groups)
            counts.setdefault(group, [0, 0])[side] += count
    return population_stability([(new, old) for new, old in counts.values()])


def _tenths(histogram: dict[str, int]) -> dict[str, str]:
    """Each bin's tenth, named by its number."""
    rows, seen, groups = sum(histogram.values()), 0, {}
    for name in sorted(histogram, key=place):
        groups[name] = str(min(_BINS - 1, int(_BINS * (seen + histogram[name] / 2) / rows)))
        seen += histogram[name]
    return groups


def _nearest(name: str, ends: list[str], groups: dict[str, str]) -> str:
    """Where a bin goes that the reference does not have: to its neighbour; a text is a group of its own."""
    at = place(name)
    if math.isnan(at) or name[0] not in "+-0":
        return name
    return groups[min(ends, key=lambda end: abs(place(end) - at))]
