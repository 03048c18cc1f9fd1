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


def spearman(scores: Numbers, relevance: Numbers) -> float:
    """Pearson's correlation of the two rankings, in [−1, 1], ties at their mean rank (Spearman, 1904).

    0 where one side is constant (or has fewer than two numbers): it orders nothing.
    """
    if len(scores) < 2 or np.ptp(scores) == 0 or np.ptp(relevance) == 0:
        return 0.0
    return float(spearmanr(scores, relevance).statistic)


def rmse(predicted: Numbers, relevance: Numbers) -> float:
    """Root of the mean squared error, in the unit of the grades."""
    return float(root_mean_squared_error(relevance, predicted))
