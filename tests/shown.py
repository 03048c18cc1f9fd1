"""Impressions that a test wrote, counted as the examples stage counts them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import duckdb
import pyarrow as pa

from reshelve.clickstream.database import connect
from reshelve.clickstream.remember import EVERYTHING
from reshelve.config.remember import Remember
from reshelve.features.impression_counts import ImpressionCounts

SCHEMA = pa.schema(
    {
        "norm": pa.string(),
        "item_id": pa.string(),
        "day": pa.date32(),
        "chosen_on": pa.date32(),
        "customer": pa.string(),
    }
)
SEEN = "FROM impressions"


def impressions(
    queries: Sequence[str],
    items: Sequence[str],
    days: Sequence[date],
    chosen: Sequence[date | None],
    customers: Sequence[str] | None = None,
) -> duckdb.DuckDBPyConnection:
    """A database with the table `impressions`; by default each is shown to a customer of its own."""
    who = [str(number) for number in range(len(queries))] if customers is None else customers
    db = connect()
    table = pa.table(list(map(list, (queries, items, days, chosen, who))), schema=SCHEMA)
    db.register("given", table)
    db.execute("CREATE TABLE impressions AS FROM given")
    return db


def counted(*columns: Any, rule: Remember = EVERYTHING) -> ImpressionCounts:
    """The columns of `impressions`, counted."""
    return ImpressionCounts(impressions(*columns), SEEN, rule)
