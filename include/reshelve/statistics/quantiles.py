"""Quantiles with their spread: of a sample by its ranks, and the robust middle of a few values. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import median

from reshelve.statistics.interval import Interval
from reshelve.statistics.normal import Z_99

_MAD_TO_DEVIATION = 1.4826  # of a normal distribution


def order_statistics(
    at_rank: Callable[[float], float], count: int, share: float, z: float = Z_99
) -> Interval | None:
    """The `share` quantile of `count` values, between two of their order statistics (Thompson, 1936; the ranks by the normal
    approximation of the binomial, Conover, 1999, section 3.2).

    `at_rank` gives the value of a rank, from 1. None of no values.
    """
    if not count:
        return None
    middle, half = count * share, z * math.sqrt(count * share * (1 - share))
    ranks = (middle, middle - half, middle + half)
    return Interval(*(at_rank(min(float(count), max(1.0, rank))) for rank in ranks))


def median_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """The median, and the median absolute deviation as a standard deviation (Rousseeuw and Croux, 1993). Needs a value."""
    middle = median(values)
    return middle, _MAD_TO_DEVIATION * median(abs(value - middle) for value in values)
