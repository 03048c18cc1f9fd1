"""Impressions and choices of a window, counted in DuckDB: what memory holds does not grow with their number.

Everything is counted from impressions and choices strictly before `as_of`. A rate is smoothed towards what is known more
surely: a query's and an item's towards that of all, that of an item under a query towards the item's.

Sums are of whole numbers, decayed weights in units of 2**-50: they are exact, so the order in which they are made does not
matter, and equal inputs give equal bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import duckdb
import numpy as np
import pyarrow as pa

from reshelve.clickstream.database import text
from reshelve.clickstream.remember import remembered_sql
from reshelve.config.remember import Remember
from reshelve.features.behaviour import HALF_LIVES, PARTS, Array, Rates, query_keys

MOST_QUERIES = 100_000  # that have rates, those under which most was shown
MOST_PAIRS = 1_000_000  # of a query and an item, likewise: both bound a version's size
_SMOOTHING = 30.0  # impressions that the surer rate counts for
_SMOOTHING_UNDER_QUERY = 10.0
_UNIT = 2.0**50
_BATCH = 20_000

_AGES = range(len(HALF_LIVES))
_COUNTS = [f"{what}_{age}" for what in ("shown", "chosen") for age in _AGES]
_TOTALS = ", ".join(f"coalesce(CAST(sum({name}) AS DOUBLE), 0) AS {name}" for name in _COUNTS)
_NAME = f"concat_ws({text(PARTS)}, {{}}) AS name"

# Queries and items are numbered, so that days are counted by numbers; a query that is never remembered has none.
_DAYS = """
CREATE OR REPLACE TABLE rate_items AS
SELECT item_id, row_number() OVER (ORDER BY item_id) AS item FROM (SELECT DISTINCT item_id FROM ({seen}));
CREATE OR REPLACE TABLE rate_queries AS
SELECT name AS key, remembered_on, row_number() OVER (ORDER BY name) AS query FROM ({remembered});
CREATE OR REPLACE TABLE rate_days AS
SELECT query, item, day, chosen_on, CAST(count(*) AS HUGEINT) AS impressions
FROM ({seen}) JOIN rate_items USING (item_id) JOIN rate_keys USING (norm) LEFT JOIN rate_queries USING (key)
GROUP BY ALL
"""
_ASKED = "SELECT key AS name, customer, day FROM ({seen}) JOIN rate_keys USING (norm)"
# What is chosen today of what was shown yesterday is not known this morning.
_PAST = """
CREATE OR REPLACE TABLE rate_past AS
SELECT CASE WHEN remembered_on < {as_of} THEN query END AS query, item, {sums}
FROM rate_days JOIN rate_weights USING (day) LEFT JOIN rate_queries USING (query) GROUP BY 1, 2
"""
_ITEMS = f"""
SELECT {_NAME.format("'item', item_id")}, item, {_TOTALS}
FROM rate_past JOIN rate_items USING (item) {{only}} GROUP BY item, item_id ORDER BY item
"""
_QUERIES = f"""
WITH kept AS (SELECT query, {_TOTALS} FROM rate_past WHERE query IS NOT NULL
              GROUP BY query ORDER BY shown_0 DESC, query LIMIT {{most}})
SELECT {_NAME.format("'query', key")}, {", ".join(_COUNTS)} FROM kept JOIN rate_queries USING (query) {{only}} ORDER BY name
"""
_PAIRS = f"""
WITH kept AS (SELECT query, item, {_TOTALS} FROM rate_past WHERE query IS NOT NULL
              GROUP BY query, item ORDER BY shown_0 DESC, query, item LIMIT {{most}})
SELECT {_NAME.format("'both', key, item_id")}, item, {", ".join(_COUNTS)}
FROM kept JOIN rate_queries USING (query) JOIN rate_items USING (item) {{only}} ORDER BY name
"""


class ImpressionCounts:
    """What `seen`, a query over the tables of `db`, gives: norm, item_id, day, chosen_on (NULL: never) and customer, one row
    an impression.

    Adds tables to `db` whose names begin with `rate_`. Every item has rates, and of the queries that `rule` lets be
    remembered, and of their pairs with items, those that were shown most.
    """

    def __init__(
        self,
        db: duckdb.DuckDBPyConnection,
        seen: str,
        rule: Remember,
        most_queries: int = MOST_QUERIES,
        most_pairs: int = MOST_PAIRS,
    ) -> None:
        self._db, self._most_queries, self._most_pairs = db, most_queries, most_pairs
        self._write_keys(seen)
        remembered = remembered_sql(_ASKED.format(seen=seen), rule)
        db.execute(_DAYS.format(seen=seen, remembered=remembered))
        self._days = [
            day for (day,) in db.execute("SELECT DISTINCT day FROM rate_days ORDER BY 1").fetchall()
        ]

    def rates(self, as_of: date, asked: tuple[Sequence[str], Sequence[str]] | None = None) -> Rates:
        """What was known at the first instant of `as_of`. With `asked`, queries and their items: of these alone."""
        self._count(as_of)
        if asked is not None:
            queries, items = asked
            self._db.execute("CREATE OR REPLACE TABLE rate_asked (key VARCHAR, item_id VARCHAR)")
            self._insert("rate_asked", query_keys(list(queries)), list(items))
        (row,) = self._db.execute(f"SELECT {_TOTALS} FROM rate_past").fetchall()
        shown, chosen = np.array(row, np.float64).reshape(2, len(HALF_LIVES)) / _UNIT
        overall = (chosen + 1.0) / (shown + 2.0)  # Laplace: finite of nothing

        def found(sql: str, columns: str, most: int = 0) -> pa.Table:
            only = f"SEMI JOIN rate_asked USING ({columns})" if asked else ""
            return self._db.sql(sql.format(only=only, most=most)).to_arrow_table()

        of_items = found(_ITEMS, "item_id")
        of_queries = found(_QUERIES, "key", self._most_queries)
        of_pairs = found(_PAIRS, "key, item_id", self._most_pairs)
        shown, chosen = _counts(of_items)
        item_rates = (chosen + _SMOOTHING * overall) / (shown + _SMOOTHING)
        place = np.searchsorted(of_items["item"].to_numpy(), of_pairs["item"].to_numpy())
        parts = (
            (of_pairs, item_rates[place], _SMOOTHING_UNDER_QUERY),
            (of_items, overall, _SMOOTHING),
            (of_queries, overall, _SMOOTHING),
        )
        names = [name for table, _, _ in parts for name in table["name"].to_pylist()]
        values = np.concatenate(
            [_lift(*_counts(table), towards, strength) for table, towards, strength in parts]
        )
        return Rates(names, values.astype(np.float32))

    def _write_keys(self, seen: str) -> None:
        """`rate_keys`: the key of each query, a batch at a time."""
        self._db.execute("CREATE OR REPLACE TABLE rate_keys (norm VARCHAR, key VARCHAR)")
        # A cursor of its own: a connection gives out one result at a time.
        for batch in self._db.cursor().sql(f"SELECT DISTINCT norm FROM ({seen})").to_arrow_reader(_BATCH):
            norms = batch["norm"].to_pylist()
            self._insert("rate_keys", norms, query_keys(norms))

    def _count(self, as_of: date) -> None:
        """`rate_past`: sums by query and item of all days before `as_of`."""
        columns = ", ".join(f"weight_{age} HUGEINT" for age in _AGES)
        self._db.execute(f"CREATE OR REPLACE TABLE rate_weights (day DATE, {columns})")
        for day in self._days:
            if day < as_of:
                age = (as_of - day).days - 1
                weights = [round(_UNIT * 2.0 ** (-age / half_life)) for half_life in HALF_LIVES]
                self._db.execute(
                    f"INSERT INTO rate_weights VALUES (?{', ?' * len(weights)})", [day, *weights]
                )
        known = f"DATE {text(as_of)}"
        sums = ", ".join(
            f"sum(impressions * weight_{age}) FILTER ({when}) AS {what}_{age}"
            for what, when in (("shown", "true"), ("chosen", f"chosen_on < {known}"))
            for age in _AGES
        )
        self._db.execute(_PAST.format(as_of=known, sums=sums))

    def _insert(self, table: str, *columns: list[str]) -> None:
        named = {f"column_{number}": pa.array(values, pa.string()) for number, values in enumerate(columns)}
        self._db.register("rate_batch", pa.table(named))
        self._db.execute(f"INSERT INTO {table} SELECT * FROM rate_batch")
        self._db.unregister("rate_batch")


def _counts(table: pa.Table) -> tuple[Array, Array]:
    """Impressions and choices, float64 [N, H] each."""
    columns = np.stack([table[name].to_numpy() for name in _COUNTS], axis=1) / _UNIT
    return columns[:, : len(HALF_LIVES)], columns[:, len(HALF_LIVES) :]


def _lift(shown: Array, chosen: Array, towards: Array, strength: float) -> Array:
    """log of the smoothed rates [N, H] over `towards` [N or 1, H]; and log(1 + impressions) [N, 1]."""
    rate = (chosen + strength * towards) / (shown + strength)
    return np.append(np.log(rate / towards), np.log1p(shown[:, :1]), axis=1)
