"""Confidence intervals by resampling clusters of queries (the percentile bootstrap, 95 %).

Questions out of one basket, or one query asked often, rise and fall together: whole clusters are drawn, or the
interval would be narrower than the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
_CHUNK_CELLS = 4_000_000  # counts drawn at once: 32 MB


@dataclass(frozen=True)
class Interval:
    """A weighted mean and its 95 % interval."""

    value: float
    low: float
    high: float


def bootstrap(
    values: Sequence[float],
    weights: Sequence[float],
    clusters: Sequence[str],
    seed: int,
    resamples: int = RESAMPLES,
) -> Interval:
    """The weighted mean of `values` with its interval. All three are per query; needs at least one query.

    Paired comparison: pass the differences of two rankers on the same queries.
    """
    _, members = np.unique(np.asarray(clusters, dtype=object).astype(str), return_inverse=True)
    weight = np.bincount(members, weights=np.asarray(weights, dtype=np.float64))
    total = np.bincount(members, weights=np.asarray(values, dtype=np.float64) * np.asarray(weights))
    count = len(weight)
    generator = np.random.default_rng(seed)
    means = []
    chunk = max(1, _CHUNK_CELLS // count)
    for start in range(0, resamples, chunk):
        drawn = generator.multinomial(count, np.full(count, 1 / count), size=min(chunk, resamples - start))
        means.append((drawn @ total) / (drawn @ weight))
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return Interval(float(total.sum() / weight.sum()), float(low), float(high))
