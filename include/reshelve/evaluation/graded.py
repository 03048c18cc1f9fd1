"""Scores against graded relevance, as human raters give it: their error.

Rank correlation is `statistics.correlation.spearman`, nDCG of grades `metrics.ndcg_of_gains`.
"""

from __future__ import annotations

from sklearn.metrics import root_mean_squared_error

from reshelve.statistics.correlation import Numbers


def rmse(predicted: Numbers, relevance: Numbers) -> float | None:
    """Root of the mean squared error, in the unit of the grades, of float[N] each. None of no numbers."""
    if not len(predicted):
        return None
    return float(root_mean_squared_error(relevance, predicted))
