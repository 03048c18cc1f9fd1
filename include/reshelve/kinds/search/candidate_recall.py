"""How much of the exhaustive answer is among the candidates of a version, on held-out questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

DEPTHS = (10, 100)
_BLOCK = 2048  # items looked at together: bounds memory whatever the catalogue
_MOST_CELLS = 32_000_000  # questions · items in all: some minutes

Logits = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def candidate_recall(
    queries: Sequence[str], places: Callable[[tf.Tensor], tf.Tensor], logits: Logits, items: int
) -> dict[str, Any]:
    """The mean share of the best 10 and 100 items of the whole catalogue that are among the candidates.

    `places`: queries [1] → candidates int32 [1, N]; `logits`: queries [1] and places [1, n] → [1, n]. Duplicates of a query
    are asked once; `questions` says how many were.
    """
    asked = list(dict.fromkeys(queries))[: max(1, _MOST_CELLS // items)]
    shares: dict[int, list[float]] = {depth: [] for depth in DEPTHS}
    for query in asked:
        best = np.argsort(-_of_all(query, logits, items), kind="stable")
        found = set(places(tf.constant([query])).numpy()[0].tolist())
        for depth in DEPTHS:
            shares[depth].append(float(np.mean([place in found for place in best[:depth].tolist()])))
    of_depths = {f"recall@{depth}": round(float(np.mean(found)), 4) for depth, found in shares.items()}
    return {**of_depths, "questions": len(asked), "items": items}


def _of_all(query: str, logits: Logits, items: int) -> np.ndarray:
    """float32 [C], in blocks of one shape, so that it is traced once."""
    found = np.empty(items, np.float32)
    for start in range(0, items, _BLOCK):
        block = np.minimum(np.arange(start, start + _BLOCK), items - 1)
        scores = logits(tf.constant([query]), tf.constant(block[None].astype(np.int32))).numpy()[0]
        found[start : start + _BLOCK] = scores[: items - start]
    return found
