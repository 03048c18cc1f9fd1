"""Queries that may be shown to people: what several customers have asked says nothing of one of them."""

from __future__ import annotations

from pathlib import Path

import duckdb

from reshelve.clickstream.masks import mask

LEAST_CUSTOMERS = 3  # a query that fewer have asked may tell who asked it
_MOST_QUERIES = 50_000


def common_queries(examples: Path) -> list[str]:
    """Queries of several customers before the held-out days, the most frequent first, without those that hold what is masked.

    `examples` is the directory of the examples stage.
    """
    with duckdb.connect() as db:
        asked = db.execute(
            f"SELECT query FROM read_parquet('{examples / 'events.parquet'}') WHERE query IS NOT NULL "
            f"GROUP BY query HAVING count(DISTINCT coalesce(user_id, session_id)) >= {LEAST_CUSTOMERS} "
            f"ORDER BY count(*) DESC, query LIMIT {_MOST_QUERIES}"
        ).fetchall()
    return [query for (query,) in asked if mask(query) == query and "<" not in query]
