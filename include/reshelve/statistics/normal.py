"""The normal distribution and what is near it: its quantiles, the interval of a mean, quantiles of chi-square."""

from __future__ import annotations

import math

from reshelve.statistics.interval import Interval

# Quantiles: so many standard errors on both sides hold 95 % or 99 %; on one side, 99.9 %.
Z_95, Z_99, Z_999_ONE_SIDED = 1.96, 2.576, 3.09
THREE_SIGMA = 3.0  # Shewhart's control limits (1931)


def mean_of_sums(total: float, squares: float, count: int) -> Interval | None:
    """The mean of `count` independent values with these sums (of the values, of their squares) and its 95 % interval (Laplace, 1812).

    None of fewer than two values: one says nothing of a spread.
    """
    if count < 2:
        return None
    mean = total / count
    half = Z_95 * math.sqrt(max(0.0, squares / count - mean**2) / (count - 1))
    return Interval(mean, mean - half, mean + half)


def chi_square_999(freedom: int) -> float:
    """The 99.9 % quantile of chi-square with so many degrees of freedom (Wilson and Hilferty, 1931)."""
    spread = 2 / (9 * freedom)
    return float(freedom * (1 - spread + Z_999_ONE_SIDED * math.sqrt(spread)) ** 3)
