"""Whether an hour is out of the ordinary: beside the same hour of earlier weeks, by median and MAD. Pure functions.

Hours are compared with the same hour of the same weekday alone: a shop that is closed on Saturdays would otherwise be
strange every Saturday. One strange week moves neither a median nor the median absolute deviation (Rousseeuw and Croux, 1993).
Counts scatter by chance alone (Poisson), and more than that from week to week: the deviation is never taken for less
than both, so that a quiet hour with three requests in place of one is no news.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reshelve.config.watch import Season
from reshelve.monitoring.watch_state import Hour
from reshelve.protocol.traffic import Counts
from reshelve.statistics.quantiles import median_and_deviation
from reshelve.statistics.rates import binomial_error, poisson_error

_LEAST_SPREAD = 0.1  # of the median: hours differ by so much and mean nothing
_LEAST_ANSWERS = 30  # of an hour whose rates are compared


@dataclass(frozen=True)
class Oddness:
    """How far an hour is from what was to be expected, in robust standard deviations; negative: below."""

    metric: str
    value: float
    expected: float
    deviations: float


def requests(hour: Hour) -> float | None:
    """How many."""
    return float(hour.requests)


def p95(hour: Hour) -> float | None:
    """The 95th percentile of the latency (ms); None of too few answers."""
    answered = sum(hour.latency.values())
    return Counts(latency=hour.latency).at_rank(0.95 * answered) if answered >= _LEAST_ANSWERS else None


def error_rate(hour: Hour) -> float | None:
    """The share that failed; None of too few requests."""
    return hour.errors / hour.requests if hour.requests >= _LEAST_ANSWERS else None


METRICS: dict[str, tuple[Callable[[Hour], float | None], Callable[[Hour, float], float]]] = {
    # metric → (its value, the deviation that is chance alone where `expected` was to be expected)
    "requests": (requests, lambda hour, expected: poisson_error(expected + 1)),
    "p95": (p95, lambda hour, expected: 0.0),
    "error rate": (
        error_rate,
        lambda hour, expected: binomial_error(expected, hour.requests, spare=1 / hour.requests),
    ),
}


def earlier(hours: Sequence[Hour], hour: Hour, least: int) -> list[Hour]:
    """The hours that `hour` is compared with; empty where there are fewer than `least`."""
    same = (hour.at.weekday(), hour.at.hour)
    found = [one for one in hours if one.at < hour.at and (one.at.weekday(), one.at.hour) == same]
    return found if len(found) >= least else []


def least_requests(hours: Sequence[Hour], hour: Hour, least: int) -> float:
    """The fewest requests of the earlier hours; 0 where there are too few of them."""
    return float(min((one.requests for one in earlier(hours, hour, least)), default=0))


def oddness(hours: Sequence[Hour], hour: Hour, rules: Season) -> list[Oddness]:
    """How far each metric of an hour that is over is from the earlier ones; metrics with too few are left out."""
    found = []
    before = earlier(hours, hour, rules.least)
    for name, (measure, chance) in METRICS.items():
        value = measure(hour)
        values = [v for one in before if (v := measure(one)) is not None]
        if value is None or len(values) < rules.least:
            continue
        middle, mad = median_and_deviation(values)
        spread = max(mad, _LEAST_SPREAD * middle, chance(hour, middle))
        if spread > 0:
            found.append(Oddness(name, value, middle, (value - middle) / spread))
    return found
