"""Scores against graded relevance, as human raters give it: rank correlation and error.

Both take one number per pair of query and item, float[N] each. nDCG of grades is `metrics.ndcg_of_gains`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.metrics import root_mean_squared_error

Numbers = Sequence[float] | NDArray[np.floating]


def spearman(scores: Numbers, relevance: Numbers) -> float | None:
    """Pearson's correlation of the two rankings, in [−1, 1], ties at their mean rank (Spearman, 1904).

    None where one side is constant (or has fewer than two numbers): it orders nothing.
    """
    if len(scores) < 2 or np.ptp(scores) == 0 or np.ptp(relevance) == 0:
        return None
    return float(spearmanr(scores, relevance).statistic)


def rmse(predicted: Numbers, relevance: Numbers) -> float | None:
    """Root of the mean squared error, in the unit of the grades. None of no numbers."""
    if not len(predicted):
        return None
    return float(root_mean_squared_error(relevance, predicted))
