"""The searches of a window, counted in DuckDB: what memory holds grows with the texts that were asked, not with their number."""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from reshelve.clickstream.database import connect, text
from reshelve.clickstream.remember import CUSTOMER_SQL
from reshelve.config.ranker import Ranker
from reshelve.examples.catalogue import Catalogue
from reshelve.features.tables import Array, Asked, Searches

_BLANKS = "".join(filter(str.isspace, map(chr, range(sys.maxunicode + 1))))  # what str.strip takes away
_ORDINAL = f"CAST(day - DATE {text(date.min)} + 1 AS INTEGER) AS day"

_SEARCHED = f"""
CREATE VIEW searched AS
SELECT trim(query, {text(_BLANKS)}) AS text, item, CAST(event_time AS DATE) AS day, weight, {CUSTOMER_SQL} AS customer
FROM events JOIN labels USING (event_type) JOIN items USING (item_id) WHERE text <> '';
CREATE TABLE texts AS
SELECT text, CAST(row_number() OVER (ORDER BY text) - 1 AS INTEGER) AS number FROM (SELECT DISTINCT text FROM searched)
"""
_CHOSEN = f"""
SELECT number, item, {_ORDINAL}, CAST(sum(weight) AS DOUBLE) AS weight
FROM searched JOIN texts USING (text) GROUP BY number, item, searched.day ORDER BY ALL
"""
# Of each text the first customers and the first days: no more of them can move the day on which there were enough.
_ASKED = f"""
WITH first_asked AS (SELECT text, customer, min(day) AS day FROM searched GROUP BY text, customer),
customers AS (FROM first_asked QUALIFY row_number() OVER (PARTITION BY text ORDER BY day, customer) <= {{customers}}),
every_day AS (SELECT text, min(customer) AS customer, day FROM searched GROUP BY text, day),
days AS (FROM every_day QUALIFY row_number() OVER (PARTITION BY text ORDER BY day) <= {{days}})
SELECT number, CAST(dense_rank() OVER (ORDER BY customer) - 1 AS INTEGER) AS customer, {_ORDINAL}
FROM (FROM customers UNION FROM days) JOIN texts USING (text) ORDER BY ALL
"""


def read_searches(events: Path, catalogue: Catalogue, ranker: Ranker, spill: Path) -> Searches:
    """Label events with a query and an item of the catalogue, from `events.parquet`, which knows nothing of the holdout."""
    db = connect(spill=spill)
    try:
        db.read_parquet(str(events)).create_view("events")
        db.execute("CREATE TABLE labels (event_type VARCHAR, weight DECIMAL(18, 6))")
        db.executemany("INSERT INTO labels VALUES (?, ?)", sorted(ranker.data.label_weights.items()))
        places = pa.array(range(len(catalogue)), pa.int32())
        db.register(
            "catalogue", pa.table({"item_id": pa.array(catalogue.items, pa.string()), "item": places})
        )
        db.execute("CREATE TABLE items AS FROM catalogue")
        db.execute(_SEARCHED)
        number, item, day, weight = _columns(db, _CHOSEN)
        rule = ranker.remember
        asked = Asked(*_columns(db, _ASKED.format(customers=rule.customers, days=rule.days)))
        texts = db.sql("SELECT text FROM texts ORDER BY number").to_arrow_table()["text"].to_pylist()
    finally:
        db.close()
    return Searches(texts, number, item, day, weight, asked)


def _columns(db: duckdb.DuckDBPyConnection, sql: str) -> list[Array]:
    return [np.asarray(column) for column in db.sql(sql).to_arrow_table().columns]
