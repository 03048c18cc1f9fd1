"""How alike two orders are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

Numbers = Sequence[float] | NDArray[np.floating]


def spearman(one: Numbers, other: Numbers) -> float | None:
    """Pearson's correlation of the two rankings, in [−1, 1], ties at their mean rank (Spearman, 1904).

    None where one side is constant (or has fewer than two numbers): it orders nothing.
    """
    if len(one) < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return float(spearmanr(one, other).statistic)
