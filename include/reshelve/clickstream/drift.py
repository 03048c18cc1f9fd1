"""How far a day's distribution is from the trailing days', as an effect size that knows its sample size.

Population stability index: sum over bins of (p - q) ln(p / q). Where nothing changed it is distributed as
chi-square with bins - 1 degrees of freedom, times (1/n + 1/m) (Yurdakul, 2018, "Statistical properties of
population stability index"): with few rows it is large by chance alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from reshelve.clickstream.profile import place

_BINS = 10
_SURE = 3.09  # standard normal quantile of 99.9 %


@dataclass(frozen=True)
class Stability:
    """`psi`, and `chance`: what it exceeds once in a thousand days though nothing changed."""

    psi: float
    chance: float


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
    n, m = sum(today.values()), sum(before.values())
    psi = 0.0
    for new, old in counts.values():
        p, q = (new + 0.5) / (n + 0.5 * len(counts)), (old + 0.5) / (m + 0.5 * len(counts))
        psi += (p - q) * math.log(p / q)
    return Stability(psi, _chi_square(max(1, len(counts) - 1)) * (1 / n + 1 / m))


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


def _chi_square(freedom: int) -> float:
    """The 99.9 % quantile (Wilson and Hilferty, 1931)."""
    spread = 2 / (9 * freedom)
    return float(freedom * (1 - spread + _SURE * math.sqrt(spread)) ** 3)
