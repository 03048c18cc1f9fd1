"""Scores as probabilities of a yes or no: AUC and log loss, by scikit-learn.

All arrays are per prediction: `outcome` bool[N], `score` or `probability` float64[N], `weight` float64[N] above 0.
"""

from __future__ import annotations

import numpy as np
from sklearn.metrics import log_loss as _log_loss
from sklearn.metrics import roc_auc_score


def auc(outcome: np.ndarray, score: np.ndarray, weight: np.ndarray) -> float | None:
    """Chance that a yes scores above a no, ties half (Fawcett, 2006). None where one of the two is lacking."""
    if outcome.all() or not outcome.any():
        return None
    return float(roc_auc_score(outcome, score, sample_weight=weight))


def log_loss(outcome: np.ndarray, probability: np.ndarray, weight: np.ndarray) -> float | None:
    """Mean −ln of the probability given to what happened, in nats; finite also at 0 and 1. None of no predictions."""
    if not len(outcome):
        return None
    return float(_log_loss(outcome, probability, sample_weight=weight, labels=[False, True]))
