"""The population stability index, and how large chance alone makes it."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from reshelve.statistics.normal import chi_square_999


@dataclass(frozen=True)
class Stability:
    """`psi`, and `chance`: what it exceeds once in a thousand times though nothing changed."""

    psi: float
    chance: float


def population_stability(bins: Collection[tuple[int, int]]) -> Stability:
    """The index of two histograms, from the counts of both in each bin: sum of (p - q) ln(p / q). Both sides must have rows.

    Where nothing changed it is distributed as chi-square with bins - 1 degrees of freedom, times (1/n + 1/m) (Yurdakul, 2018,
    "Statistical properties of population stability index"): with few rows it is large by chance alone.
    """
    n, m = (sum(side) for side in zip(*bins, strict=True))
    psi = 0.0
    for new, old in bins:
        p, q = (new + 0.5) / (n + 0.5 * len(bins)), (old + 0.5) / (m + 0.5 * len(bins))
        psi += (p - q) * math.log(p / q)
    return Stability(psi, chi_square_999(max(1, len(bins) - 1)) * (1 / n + 1 / m))
