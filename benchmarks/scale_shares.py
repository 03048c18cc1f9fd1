"""How much of what is wanted is found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def shares(found: Sequence[Sequence[int]], wanted: np.ndarray, meant: np.ndarray) -> dict[str, float]:
    """Recall of the first 10 and 100 of `wanted` [Q, 100] among as many found; share of questions with `meant` in the first 10."""

    def of_best(count: int) -> float:
        pairs = zip(found, wanted, strict=True)
        each = [
            len({*places[:count]} & {*best[:count].tolist()}) / len(best[:count]) for places, best in pairs
        ]
        return float(np.mean(each))

    hits = [item in places[:10] for places, item in zip(found, meant.tolist(), strict=True)]
    return {"recall_10": of_best(10), "recall_100": of_best(100), "meant_10": float(np.mean(hits))}
