"""The clickstream of `bench_validate.py`: a day of sessions, the faults planted in it, and the list of them.

A session is 20 rows: 17 impressions, 2 clicks on one of them, a purchase. `grade`, which no rule of these event
types reads, carries the row's number, so that what is found can be compared with what was planted row by row.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from reshelve.clickstream.database import connect, reader
from reshelve.validation.history import PartitionHistory
from reshelve.validation.profile import Profile, histograms, profile_query

DAY = date(2026, 3, 2)
LEAST_ROWS = 100_000

# One row in 10,000 for each: its place says what a session has there (17, 18: clicks; 19: the purchase).
ROW_FAULTS = {
    21: "event_id_known", 42: "event_once", 63: "event_time_known", 84: "event_in_partition", 105: "item_known",
    126: "session_known", 147: "event_type_given", 168: "event_type_known", 189: "position_possible",
    210: "query_length", 231: "grade_given", 259: "quantity_possible", 279: "price_possible", 298: "click_once",
}  # fmt: skip
# Bots: first and last session.
BOTS = {
    "session_human": (1000, 1001),
    "user_human": (1010, 1013),
    "session_of_a_day": (1100, 1151),
    "user_of_a_day": (1200, 1301),
}
PARTITION_FAULTS = (
    "title_known", "on_time", "clicked_was_shown", "item_listed", "query_explodes", "query_typed",
    "no_surprising_columns", "rows_as_usual", "items_known", "events_as_usual", "prices_as_usual", "typical_price_as_usual",
)  # fmt: skip


@dataclass(frozen=True)
class Day:
    """A generated day, its product list, its past, and how many rows break each rule."""

    events: Path
    products: Path
    history: PartitionHistory
    planted: dict[str, int]


def _plan(rows: int, faulty: bool) -> str:
    """Row numbers with what is planted where."""
    fault = (
        "CASE " + " ".join(f"WHEN i % 10000 = {at} THEN '{name}'" for at, name in ROW_FAULTS.items()) + " END"
    )
    bot = (
        "CASE "
        + " ".join(f"WHEN i // 20 BETWEEN {a} AND {b} THEN '{name}'" for name, (a, b) in BOTS.items())
        + " END"
    )
    if not faulty:
        fault = bot = "CAST(NULL AS VARCHAR)"
    return (
        f"SELECT i, i % 20 AS place, i // 20 AS visit, {bot} AS bot, CASE WHEN {bot} IS NULL THEN {fault} END AS fault,"
        f" {'true' if faulty else 'false'} AS faulty FROM range({rows}) AS numbers(i)"
    )


_EVENTS = """
SELECT
  CASE fault WHEN 'event_id_known' THEN NULL WHEN 'event_once' THEN printf('e%012d', i - 20) ELSE printf('e%012d', i) END AS event_id,
  CASE WHEN fault = 'event_time_known' THEN NULL WHEN fault = 'event_in_partition' THEN happened + INTERVAL 1 DAY
       WHEN bot IN ('session_human', 'user_human') THEN TIMESTAMP '{day}' + INTERVAL 12 HOUR + to_milliseconds(i % 400)
       WHEN bot = 'session_of_a_day' THEN TIMESTAMP '{day}' + to_seconds((i - 22000) * 60)
       WHEN bot = 'user_of_a_day' THEN TIMESTAMP '{day}' + to_seconds((i - 24000) * 40)
       WHEN fault = 'click_once' THEN happened - to_milliseconds(1) ELSE happened END AS event_time,
  CASE WHEN bot IS NOT NULL THEN 'click' WHEN fault = 'event_type_given' THEN NULL WHEN fault = 'event_type_known' THEN 'clik'
       WHEN fault = 'grade_given' THEN 'judgement' WHEN place < 17 THEN 'impression' WHEN place < 19 THEN 'click' ELSE 'purchase' END AS event_type,
  CASE WHEN bot IN ('user_human', 'user_of_a_day') THEN bot ELSE 'u' || (hash(visit) % {users}) END AS user_id,
  CASE WHEN fault = 'session_known' THEN NULL WHEN bot IN ('session_human', 'session_of_a_day') THEN bot ELSE 's' || visit END AS session_id,
  CASE WHEN fault = 'grade_given' THEN NULL WHEN fault = 'query_length' THEN repeat('x', 300)
       WHEN faulty AND visit % 10 < 3 THEN 'Spring_Sale_2026' ELSE 'query ' || (hash(visit, 1) % 5000) END AS query,
  CASE WHEN fault = 'item_known' THEN NULL ELSE 'item' || item END AS item_id,
  CASE WHEN faulty AND item % 5 = 0 THEN NULL ELSE 'Title of item ' || item END AS item_title,
  CASE WHEN fault = 'position_possible' THEN 0 WHEN place < 17 AND bot IS NULL THEN place + 1 END AS position,
  CASE WHEN fault = 'quantity_possible' THEN 0 WHEN place = 19 THEN 1 END AS quantity,
  CASE WHEN fault = 'price_possible' THEN -1.0 WHEN place = 19 THEN 1 + (hash(i) % 10000) / 100 END::DOUBLE AS price,
  i::DOUBLE AS grade, 'category ' || item % 30 AS category, CASE WHEN visit % 3 > 0 THEN 'segment ' || visit % 3 END AS segment,
  happened + CASE WHEN faulty AND i % 50 = 1 AND coalesce(fault, '') <> 'event_time_known' THEN INTERVAL 3 DAY ELSE INTERVAL 1 MINUTE END AS received_time
  {extra}
FROM (
  SELECT *, TIMESTAMP '{day}' + to_microseconds(CAST(86000e6 * (visit * 20) / {rows} AS BIGINT)) + to_milliseconds(place) AS happened,
    CASE WHEN bot IS NOT NULL OR (faulty AND place = 18 AND visit % 2 = 0 AND fault IS NULL) THEN 20000 + hash(i) % 20000
         ELSE hash(visit, CASE WHEN place < 17 THEN place ELSE 3 END) % 20000 END AS item
  FROM ({plan}) AS planned
) AS drawn
"""


def generate(rows: int, directory: Path, *, faulty: bool) -> Day:
    """Write one day of `rows` rows (at least LEAST_ROWS) below `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    events, products = directory / "events.parquet", directory / "products.parquet"
    query = _EVENTS.format(
        day=DAY,
        rows=rows,
        users=rows // 60 + 1,
        plan=_plan(rows, faulty),
        extra=", 'b' AS experiment" if faulty else "",
    )
    with connect(directory / "generate.duckdb") as db:
        db.execute(f"COPY ({query}) TO '{events}' (FORMAT parquet, COMPRESSION zstd)")
        lacking = "WHERE n % 5 <> 0" if faulty else ""
        db.execute(
            f"COPY (SELECT 'item' || n AS item_id, 'Title of item ' || n AS title FROM range(40000) AS t(n) {lacking}) TO '{products}' (FORMAT parquet)"
        )
        planted = _planted(db, rows, events) if faulty else {}
        return Day(events, products, _history(db, rows, directory, faulty), planted)


def truth(rows: int) -> str:
    """The list of planted row faults as a query: rule, row."""
    return f"SELECT coalesce(bot, fault) AS rule, i AS row FROM ({_plan(rows, True)}) AS planned WHERE coalesce(bot, fault) IS NOT NULL"


def _planted(db: duckdb.DuckDBPyConnection, rows: int, events: Path) -> dict[str, int]:
    """Rows that break each rule, by how they were made (the bots' clicks are on what was never shown, too)."""
    counts: dict[str, int] = dict(
        db.execute(f"SELECT rule, count(*) FROM ({truth(rows)}) GROUP BY rule").fetchall()
    )
    plan = _plan(rows, True)

    def planned(where: str) -> int:
        return int(db.execute(f"SELECT count(*) FROM ({plan}) AS planned WHERE {where}").fetchone()[0])

    counts["on_time"] = int(
        db.execute(
            f"SELECT count(*) FROM {reader([events])} WHERE received_time - event_time > INTERVAL 48 HOUR"
        ).fetchone()[0]
    )
    counts["clicked_was_shown"] = planned(
        "bot IS NOT NULL OR (place = 18 AND visit % 2 = 0 AND fault IS NULL)"
    )
    counts["query_explodes"] = planned(
        "visit % 10 < 3 AND coalesce(fault, '') NOT IN ('grade_given', 'query_length')"
    )
    counts["query_typed"] = counts["query_explodes"]
    unlisted = f"SELECT count(*) FROM {reader([events])} WHERE CAST(item_id[5:] AS BIGINT) % 5 = 0"
    counts["item_listed"] = counts["title_known"] = int(db.execute(unlisted).fetchone()[0])
    return counts


def _history(db: duckdb.DuckDBPyConnection, rows: int, directory: Path, faulty: bool) -> PartitionHistory:
    """Three weeks of days like a clean one of `rows`; for the faulty day of another kind altogether."""
    query = _EVENTS.format(day=DAY, rows=LEAST_ROWS, users=2000, plan=_plan(LEAST_ROWS, False), extra="")
    shape = histograms(db.execute(profile_query(f"({query})")).fetchall())
    many = rows
    if faulty:
        many = rows * 5
        shape["price"] = {f"+{int(name[1:]) + 40}": count for name, count in shape["price"].items()}
        shape["event_type"] = {"impression": 50_000, "purchase": 50_000}
    days = tuple(
        Profile(partition=DAY - timedelta(days=ago), rows=many, good=many, histograms=shape)
        for ago in range(21, 0, -1)
    )
    items = directory / "items.parquet"
    names = [f"old{n}" if faulty else f"item{n}" for n in range(40_000)]
    pq.write_table(pa.table({"item_id": names, "events": [1] * len(names)}), items)
    return PartitionHistory(days, (items,))
