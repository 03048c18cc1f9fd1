"""Shares of a count: of requests that fail, of rows of one kind. Pure functions, without numpy."""

from __future__ import annotations

import math

from reshelve.statistics.interval import Interval
from reshelve.statistics.normal import Z_99


def wilson(hits: int, count: int, z: float = Z_99) -> Interval:
    """A rate and its score interval (Wilson, 1927); 0 to 1 of nothing counted."""
    if count == 0:
        return Interval(0.5, 0.0, 1.0)
    rate, square = hits / count, z * z
    middle = (rate + square / (2 * count)) / (1 + square / count)
    half = z / (1 + square / count) * math.sqrt(rate * (1 - rate) / count + square / (4 * count * count))
    return Interval(rate, max(0.0, middle - half), min(1.0, middle + half))


def newcombe(hits: int, count: int, other_hits: int, other_count: int, z: float = Z_99) -> Interval:
    """The first rate minus the second, from the score intervals of both (Newcombe, 1998, method 10); -1 to 1 of nothing counted."""
    if not count or not other_count:
        return Interval(0.0, -1.0, 1.0)
    a, a_low, a_high = wilson(hits, count, z)
    b, b_low, b_high = wilson(other_hits, other_count, z)
    low = a - b - math.sqrt((a - a_low) ** 2 + (b_high - b) ** 2)
    high = a - b + math.sqrt((a_high - a) ** 2 + (b - b_low) ** 2)
    return Interval(a - b, low, high)


def binomial_error(rate: float, count: int, spare: float = 0.0) -> float:
    """The standard error of a share of `count` rows where `rate` is the true one (Bernoulli's variance).

    `spare` variance keeps it above 0 where the rate is 0 or 1.
    """
    return math.sqrt((rate * (1 - rate) + spare) / count)


def poisson_error(expected: float) -> float:
    """The standard deviation of a count where so many are expected (Poisson, 1837)."""
    return math.sqrt(expected)
