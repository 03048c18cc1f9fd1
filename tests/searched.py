"""Searches that a test wrote, as the blend stage reads them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reshelve.features.tables import AskedTexts, Searches


def searched(
    queries: Sequence[str],
    items: Sequence[int],
    days: Sequence[int],
    weights: Sequence[float],
    customers: Sequence[str] | None = None,
) -> Searches:
    """One event each, of a day number and an item's index; by default each is a customer's of its own."""
    texts = sorted(set(queries))
    place = {text: number for number, text in enumerate(texts)}
    numbers = np.array([place[query] for query in queries], np.int32)
    who = np.arange(len(queries)) if customers is None else np.unique(customers, return_inverse=True)[1]
    when = np.array(days, np.int32)
    asked = AskedTexts(numbers, who.astype(np.int32), when)
    return Searches(texts, numbers, np.array(items, np.int32), when, np.array(weights, np.float64), asked)
