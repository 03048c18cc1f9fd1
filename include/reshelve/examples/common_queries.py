"""Queries that may be shown to people, and kept with a version: those that may be remembered."""

from __future__ import annotations

from pathlib import Path

from reshelve.clickstream.database import connect
from reshelve.clickstream.masks import mask
from reshelve.clickstream.remember import remembered_in
from reshelve.config.remember import Remember

_MOST_QUERIES = 50_000


def common_queries(examples: Path, rule: Remember) -> list[str]:
    """Queries before the held-out days that `rule` lets be remembered, the most frequent first, without those that hold what is masked.

    `examples` is the directory of the examples stage. With `remember.privacy` none: which they are follows from exact counts.
    """
    if rule.privacy.on:
        return []
    with connect(spill=examples / ".spill") as db:
        db.read_parquet(str(examples / "events.parquet")).create_view("asked")
        db.execute("CREATE TABLE remembered (query VARCHAR)")
        db.execute("INSERT INTO remembered SELECT unnest(?)", [remembered_in(db, "asked", "query", rule)])
        found = db.execute(
            "SELECT query FROM asked SEMI JOIN remembered USING (query) "
            f"GROUP BY query ORDER BY count(*) DESC, query LIMIT {_MOST_QUERIES}"
        ).fetchall()
    return [query for (query,) in found if mask(query) == query and "<" not in query]
