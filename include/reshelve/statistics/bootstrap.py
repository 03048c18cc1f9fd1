"""Confidence intervals by resampling (the percentile bootstrap, 95 %; Efron, 1979; of whole clusters: Davison and Hinkley, 1997).

Questions out of one basket, or one query asked often, rise and fall together: whole clusters are drawn, or the
interval would be narrower than the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from reshelve.statistics.interval import Interval

RESAMPLES = 2000
LEAST_CLUSTERS = 10  # of fewer, resampled, an interval is too narrow to be believed
_CHUNK_CELLS = 4_000_000  # counts drawn at once: 32 MB
_SLOW_RESAMPLES = 400  # each goes through all rows
_SLOW_CELLS = 2_000_000  # of one step: 16 MB


def bootstrap(
    values: Sequence[float] | np.ndarray,
    weights: Sequence[float] | np.ndarray,
    clusters: Sequence[str] | np.ndarray,
    seed: int,
    resamples: int = RESAMPLES,
) -> Interval:
    """The weighted mean of `values` with its interval. All three are per query; needs at least one query.

    Paired comparison: pass the differences of two rankers on the same queries.
    """
    members, count = _cluster_numbers(clusters)
    weight = np.bincount(members, weights=np.asarray(weights, dtype=np.float64))
    total = np.bincount(members, weights=np.asarray(values, dtype=np.float64) * np.asarray(weights))
    means = [(drawn @ total) / (drawn @ weight) for drawn in _draws(count, seed, resamples)]
    return _percentiles(float(total.sum() / weight.sum()), means)


def bootstrap_of_independent(values: Sequence[float] | np.ndarray, seed: int) -> Interval:
    """The plain mean of values that are clusters of one each, float[N], with its interval."""
    return bootstrap(values, np.ones(len(values)), [str(number) for number in range(len(values))], seed)


def bootstrap_of_gaps(
    gaps: np.ndarray, weights: np.ndarray, clusters: Sequence[str], cells: np.ndarray, count: int, seed: int
) -> Interval:
    """The sum over `count` cells of |sum of gaps in the cell|, by all weight, with its interval.

    Per row: `gaps` float64[N] (weighted), `weights` float64[N], `clusters`, `cells` int64[N] below `count`.
    """
    members, groups = _cluster_numbers(clusters)
    sums = np.bincount(members * count + cells, weights=gaps, minlength=groups * count).reshape(groups, count)
    weight = np.bincount(members, weights=weights)
    resampled = [
        np.abs(drawn @ sums).sum(axis=1) / (drawn @ weight) for drawn in _draws(groups, seed, RESAMPLES)
    ]
    return _percentiles(float(np.abs(sums.sum(axis=0)).sum() / weight.sum()), resampled)


def bootstrap_of_rows(
    value: float,
    statistic: Callable[[np.ndarray], np.ndarray],
    clusters: Sequence[str] | np.ndarray,
    seed: int,
) -> Interval:
    """`value` with the interval of a statistic that has to see every row.

    `statistic` takes how often each row is drawn, int64[R, rows], and gives float64[at most R]: a resample of which it
    makes nothing is left out.
    """
    members, count = _cluster_numbers(clusters)
    rows = max(1, _SLOW_CELLS // len(members))
    resampled = [
        statistic(part[:, members])
        for drawn in _draws(count, seed, _SLOW_RESAMPLES)
        for part in np.split(drawn, range(rows, len(drawn), rows))
    ]
    return _percentiles(value, resampled)


def bootstrap_of_median_ratio(before: Sequence[float], after: Sequence[float]) -> Interval:
    """The median of the paired ratios after / before, below 1 where `after` is less, with its interval by resampling pairs."""
    ratios = np.array(after) / np.array(before)
    drawn = np.random.default_rng(0).integers(0, len(ratios), (RESAMPLES, len(ratios)))
    return _percentiles(float(np.median(ratios)), [np.median(ratios[drawn], axis=1)])


def _cluster_numbers(clusters: Sequence[str] | np.ndarray) -> tuple[np.ndarray, int]:
    """int64[rows]: each row's cluster, numbered from 0; and how many there are."""
    names, members = np.unique(np.asarray(clusters, dtype=object).astype(str), return_inverse=True)
    return members, len(names)


def _draws(count: int, seed: int, resamples: int) -> Iterator[np.ndarray]:
    """int64[≤ resamples, count], some at a time: how often each of `count` clusters is drawn."""
    generator = np.random.default_rng(seed)
    chunk = max(1, _CHUNK_CELLS // count)
    for start in range(0, resamples, chunk):
        yield generator.multinomial(count, np.full(count, 1 / count), size=min(chunk, resamples - start))


def _percentiles(value: float, resampled: Sequence[np.ndarray]) -> Interval:
    """`value` with the middle 95 % of what the resamples gave."""
    low, high = np.quantile(np.concatenate(resampled), [0.025, 0.975])
    return Interval(value, float(low), float(high))
