"""Confidence intervals by resampling clusters of queries (the percentile bootstrap, 95 %).

Questions out of one basket, or one query asked often, rise and fall together: whole clusters are drawn, or the
interval would be narrower than the truth.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
LEAST_CLUSTERS = 10  # of fewer, resampled, an interval is too narrow to be believed
_CHUNK_CELLS = 4_000_000  # counts drawn at once: 32 MB


@dataclass(frozen=True)
class Interval:
    """A weighted mean and its 95 % interval."""

    value: float
    low: float
    high: float


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
    members, count = cluster_numbers(clusters)
    weight = np.bincount(members, weights=np.asarray(weights, dtype=np.float64))
    total = np.bincount(members, weights=np.asarray(values, dtype=np.float64) * np.asarray(weights))
    means = [(drawn @ total) / (drawn @ weight) for drawn in draws(count, seed, resamples)]
    return percentiles(float(total.sum() / weight.sum()), means)


def cluster_numbers(clusters: Sequence[str] | np.ndarray) -> tuple[np.ndarray, int]:
    """int64[rows]: each row's cluster, numbered from 0; and how many there are."""
    names, members = np.unique(np.asarray(clusters, dtype=object).astype(str), return_inverse=True)
    return members, len(names)


def draws(count: int, seed: int, resamples: int = RESAMPLES) -> Iterator[np.ndarray]:
    """int64[≤ resamples, count], some at a time: how often each of `count` clusters is drawn."""
    generator = np.random.default_rng(seed)
    chunk = max(1, _CHUNK_CELLS // count)
    for start in range(0, resamples, chunk):
        yield generator.multinomial(count, np.full(count, 1 / count), size=min(chunk, resamples - start))


def percentiles(value: float, resampled: Sequence[np.ndarray]) -> Interval:
    """`value` with the middle 95 % of what the resamples gave."""
    low, high = np.quantile(np.concatenate(resampled), [0.025, 0.975])
    return Interval(value, float(low), float(high))
