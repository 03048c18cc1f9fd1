"""Who reads which held-out question: the compression verdict a part of them, the gate the others.

A step that was kept because it did well on some questions looks well on these again: with one set for both, the gate's
figures are too high. Clusters (baskets, queries, sessions) are dealt whole, by a hash of their names: what one of them
tells about its others must not cross over either, and the same question goes the same way on every night.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from reshelve.config.ranker import Ranker
from reshelve.examples.formats import HoldoutQuery
from reshelve.examples.sampling import stable_hash

COMPRESSION_SHARE = 0.25  # of the clusters; the gate has to tell smaller differences


def for_compression(cluster: str) -> bool:
    """Whether questions of a cluster are the compression verdict's."""
    return stable_hash("compression", cluster) % 1000 < 1000 * COMPRESSION_SHARE


def for_gate(queries: Sequence[HoldoutQuery], ranker: Ranker) -> list[HoldoutQuery]:
    """The gate's questions: all of them where the ranker file names no compression step, and where none would be left."""
    if not ranker.compression.steps:
        return list(queries)
    return [query for query in queries if not for_compression(query.cluster)] or list(queries)


def to_draw(ranker: Ranker) -> int:
    """How many questions are drawn of the slice, so that about `gates.max_queries` are left to the gate."""
    most = ranker.gates.max_queries
    return math.ceil(most / (1 - COMPRESSION_SHARE)) if ranker.compression.steps else most
