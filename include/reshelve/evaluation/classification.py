"""Scores as probabilities of a yes or no: AUC and log loss, by scikit-learn.

All arrays are per prediction: `outcome` bool[N], `score` or `probability` float64[N], `weight` float64[N] above 0.
"""

from __future__ import annotations

import numpy as np
from sklearn.metrics import log_loss as _log_loss
from sklearn.metrics import roc_auc_score

from reshelve.statistics.bootstrap import bootstrap_of_rows
from reshelve.statistics.interval import Interval


def auc(outcome: np.ndarray, score: np.ndarray, weight: np.ndarray) -> float | None:
    """Chance that a yes scores above a no, ties half (Fawcett, 2006). None where one of the two is lacking."""
    if outcome.all() or not outcome.any():
        return None
    return float(roc_auc_score(outcome, score, sample_weight=weight))


def auc_interval(
    outcome: np.ndarray, score: np.ndarray, weight: np.ndarray, cluster: np.ndarray, seed: int
) -> Interval | None:
    """The same with its 95 % interval by resampling clusters (str[N]). Scores may be infinite."""
    _, place = np.unique(score, return_inverse=True)
    value = auc(outcome, place.astype(np.float64), weight)
    if value is None:
        return None
    order = np.argsort(place, kind="stable")
    starts = np.flatnonzero(np.diff(place[order], prepend=-1))  # of each distinct score, ascending
    yes, no = (weight * outcome)[order], (weight * ~outcome)[order]

    def of_drawn(times: np.ndarray) -> np.ndarray:
        above = np.add.reduceat(times * yes, starts, axis=1)
        below = np.add.reduceat(times * no, starts, axis=1)
        ordered = (above * (below.cumsum(axis=1) - below / 2)).sum(axis=1)
        pairs = above.sum(axis=1) * below.sum(axis=1)
        return ordered[pairs > 0] / pairs[pairs > 0]

    return bootstrap_of_rows(value, of_drawn, cluster[order], seed)


def log_loss(outcome: np.ndarray, probability: np.ndarray, weight: np.ndarray) -> float | None:
    """Mean −ln of the probability given to what happened, in nats; finite also at 0 and 1. None of no predictions."""
    if not len(outcome):
        return None
    return float(_log_loss(outcome, probability, sample_weight=weight, labels=[False, True]))
