"""Searches become questions over the whole catalogue: a query text and what was chosen under it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import duckdb

from reshelve.examples.catalogue import Catalogue
from reshelve.examples.window import stream

_CHOICES = """
WITH choices AS (
    SELECT norm, item_id, first(query ORDER BY event_time DESC, day DESC, line DESC) AS query,
           CAST(sum(CAST(weight AS DECIMAL(18, 6))) AS DOUBLE) AS total, max(event_time) AS last
    FROM events WHERE part = $part AND norm <> '' GROUP BY norm, item_id
)
SELECT trim(query), item_id, total FROM choices ORDER BY last DESC, norm, item_id LIMIT $limit
"""


@dataclass(frozen=True)
class SearchChoice:
    """One row of train.parquet or validation.parquet, before it is tokenised."""

    query: str
    target: int
    weight: float

    def row(self, input_ids: list[int]) -> dict[str, Any]:
        """As a row of CATALOGUE_EXAMPLES."""
        return {"input_ids": input_ids, "targets": [self.target], "weight": self.weight}


def choices(
    connection: duckdb.DuckDBPyConnection, catalogue: Catalogue, part: str, limit: int
) -> Iterator[SearchChoice]:
    """The newest `limit` pairs of query and chosen item; an item that left the catalogue is left out."""
    for query, item, total in stream(connection, _CHOICES, {"part": part, "limit": limit}):
        position = catalogue.index.get(item)
        if position is not None:
            # The thousandth click says less than the first.
            yield SearchChoice(query, position, math.log2(1 + total))
