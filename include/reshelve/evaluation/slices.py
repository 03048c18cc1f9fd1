"""Slices of the held-out questions: a mean can rise while one kind of customer loses.

Head, torso and tail carry a third of the past's weight each, most frequent first: the same rule for queries and for
items. What stands for a question (its query, the newest item of its history) the kind says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from reshelve.examples.event_counts import EventCounts
from reshelve.examples.formats import HoldoutQuery
from reshelve.kind_registry import kind_of
from reshelve.statistics.bootstrap import LEAST_CLUSTERS

NEW_DAYS = 7  # an item is new while its first known event is no older, counted back from the holdout
MOST_NAMED = 20  # slices of the shop's own names: each costs a bootstrap, and a line in the report


@dataclass(frozen=True)
class Familiarity:
    """What the past knew of the queries asked and of the items.

    The mappings give the share of the past's weight that more frequent ones carry, in [0, 1).
    """

    queries: Mapping[str, float]  # by what the kind takes for the subject
    items: Mapping[str, float]
    settled: Collection[str]  # items known for more than NEW_DAYS
    categories: Mapping[str, str] = field(default_factory=dict)  # by item, where it is known

    @classmethod
    def of(cls, past: EventCounts, queries: Sequence[HoldoutQuery], kind: str) -> Familiarity:
        """Counted over `past`, which holds nothing of the holdout."""
        items = past.more_frequent("item_id")
        asked = kind_of(kind).evaluation.familiar(past, queries)
        return cls(asked, items, past.known_before(NEW_DAYS), past.catalogue.category)

    def new(self, items: Collection[str]) -> set[str]:
        """Those of `items` that were not known before the last NEW_DAYS."""
        return {item for item in items if item not in self.settled}

    def rare(self, items: Collection[str]) -> set[str]:
        """Those of `items` that are in the tail, or were never chosen at all."""
        return {item for item in items if tier(self.items.get(item, 1.0)) == "tail"}


def tier(more_frequent: float) -> str:
    """head, torso or tail, from the share of the weight that more frequent ones carry."""
    return "head" if more_frequent < 1 / 3 else "torso" if more_frequent < 2 / 3 else "tail"


def labels(query: HoldoutQuery, kind: str, known: Familiarity) -> set[str]:
    """The slices that a question is in, as in `query/head`, `item/new`, `category/lamps`, `segment/France`."""
    asked = known.queries.get(kind_of(kind).evaluation.subject(query))
    found = {"query/unseen"} if asked is None else {"query/seen", f"query/{tier(asked)}"}
    found |= {f"item/{tier(known.items.get(item, 1.0))}" for item in query.relevant}
    if known.new(query.relevant):
        found.add("item/new")
    found |= {
        f"category/{category}"
        for item in query.relevant
        if (category := known.categories.get(item)) is not None
    }
    if query.segment is not None:
        found.add(f"segment/{query.segment}")
    return found


def masks(labelled: Sequence[Collection[str]]) -> dict[str, np.ndarray]:
    """bool[Q] by label, for every label that a question has; of categories and of segments the MOST_NAMED commonest."""
    counts = Counter(name for found in labelled for name in found)
    named = {
        prefix: [name for name in counts if name.startswith(prefix)] for prefix in ("category/", "segment/")
    }
    dropped = {
        name
        for names in named.values()
        for name in sorted(names, key=lambda name: (-counts[name], name))[MOST_NAMED:]
    }
    names = sorted(counts.keys() - dropped)
    return {name: np.array([name in found for found in labelled]) for name in names}


def enough(mask: np.ndarray, clusters: np.ndarray, least: int) -> bool:
    """Whether a slice has `least` questions, out of LEAST_CLUSTERS clusters. Both arrays are [Q]."""
    return int(mask.sum()) >= least and len(set(clusters[mask].tolist())) >= LEAST_CLUSTERS
