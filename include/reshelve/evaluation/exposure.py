"""What customers get to see: the share of the shelf that new and rare items hold, and how much of the catalogue.

A ranker that only shows what sold yesterday can have a good metric and still starve what is new.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Exposure:
    """Shares in [0, 1]; None where nothing is shown, or there is nothing to show."""

    new: float | None
    rare: float | None
    coverage: float | None


def exposure(
    ranked: Sequence[Sequence[str]], weights: Sequence[float], group: Collection[str], k: int
) -> float | None:
    """The group's share of the exposure in the first k places, None where nothing is shown.

    A place is worth 1 / log2(rank + 1), as in nDCG (Singh and Joachims, 2018); a list counts by its weight.
    """
    members = set(group)
    held = whole = 0.0
    for items, weight in zip(ranked, weights, strict=True):
        for rank, item in enumerate(items[:k], 1):
            worth = weight / math.log2(rank + 1)
            whole += worth
            held += worth * (item in members)
    return held / whole if whole else None


def coverage(ranked: Sequence[Sequence[str]], catalogue: Collection[str], k: int) -> float | None:
    """Share of the catalogue that is in the first k places of any list. None of an empty catalogue."""
    shown = {item for items in ranked for item in items[:k]}
    return len(shown & set(catalogue)) / len(set(catalogue)) if catalogue else None


def exposures(
    ranked: Sequence[Sequence[str]],
    weights: Sequence[float],
    *,
    new: Collection[str],
    rare: Collection[str],
    catalogue: Collection[str],
    k: int,
) -> Exposure:
    """All of it for one ranker's lists."""
    return Exposure(
        exposure(ranked, weights, new, k), exposure(ranked, weights, rare, k), coverage(ranked, catalogue, k)
    )
