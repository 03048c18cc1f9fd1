"""Rows that are wrong only beside others: repetitions, bots, clicks on what was never shown."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reshelve.clickstream.database import database
from reshelve.clickstream.events import EVENT_SCHEMA
from reshelve.validation import quarantine
from reshelve.validation.engine import DuckDBEngine
from reshelve.validation.rules import RuleFile

NOON = datetime(2026, 3, 2, 12)
Marked = Callable[..., list[int]]


@pytest.fixture
def rows_breaking(tmp_path: Path) -> Marked:
    """`rows_breaking({"check": …}, rows)`: the places of the rows that break one rule."""

    def ask(rule: dict[str, Any], rows: list[dict[str, Any]], products: list[str] | None = None) -> list[int]:
        document = {
            "rules": [
                {"name": "a", "description": "d", "severity": "stop", "check": "readable"},
                {"name": "b", "description": "d", "severity": "stop", "check": "columns",
                 "types": {key: ["VARCHAR"] for key in EVENT_SCHEMA.names}},
                {"name": "asked", "description": "d", "severity": "quarantine", **rule},
            ]
        }  # fmt: skip
        rules = RuleFile.model_validate(document)
        full = [{**dict.fromkeys(EVENT_SCHEMA.names), "event_time": NOON, **row} for row in rows]
        half = len(full) // 2
        files = []
        for number, part in enumerate((full[:half], full[half:])):  # a row's place counts over all files
            path = tmp_path / f"part-{number}.parquet"
            pq.write_table(pa.Table.from_pylist(part, schema=EVENT_SCHEMA), path)
            files.append(path)
        catalogue = None
        if products is not None:
            catalogue = tmp_path / "products.parquet"
            pq.write_table(pa.table({"item_id": products, "title": products}), catalogue)
        with database(tmp_path / "p.duckdb") as db:
            engine = DuckDBEngine(db, tmp_path / "p.duckdb", files, catalogue)
            engine.open_events({})
            quarantine.mark(engine, rules, rules.row_rules, "2026-03-02")
            return [row for (row,) in engine.rows("SELECT _row FROM marks WHERE _aside = 1 ORDER BY _row")]

    return ask


def clicks(count: int, every: timedelta, **more: Any) -> list[dict[str, Any]]:
    return [{"event_type": "click", "event_time": NOON + n * every, **more} for n in range(count)]


def test_a_repeated_value_breaks_and_its_first_stays(rows_breaking: Marked) -> None:
    rows = [{"event_id": one} for one in ("a", None, "b", "a", None, "a", "c", "b")]
    assert rows_breaking({"check": "unique", "column": "event_id"}, rows) == [3, 5, 7]


def test_the_same_event_under_another_id_breaks(rows_breaking: Marked) -> None:
    rule = {"check": "repeated", "columns": ["session_id", "item_id", "query"]}
    rows = [
        {"event_id": "1", "event_type": "click", "session_id": "s", "item_id": "i"},
        {"event_id": "2", "event_type": "click", "session_id": "s", "item_id": "j"},
        {"event_id": "3", "event_type": "click", "session_id": "s", "item_id": "i"},  # NULL equals NULL
        {"event_id": "4", "event_type": "click", "session_id": "s", "item_id": "i", "query": "q"},
        {"event_id": "5", "event_type": "impression", "session_id": "s", "item_id": "i"},
        {"event_id": "6", "event_type": "impression", "session_id": "s", "item_id": "i"},
    ]
    assert rows_breaking(rule, rows) == [2]


def test_a_click_on_what_was_not_shown_breaks(rows_breaking: Marked) -> None:
    rows = [
        {"event_type": "impression", "session_id": "s", "item_id": "i"},
        {"event_type": "click", "session_id": "s", "item_id": "i"},
        {"event_type": "click", "session_id": "t", "item_id": "i"},
        {"event_type": "click", "session_id": "s", "item_id": "j"},
        {"event_type": "purchase", "session_id": "s", "item_id": "j"},
        {"event_type": "click", "session_id": None, "item_id": "i"},
    ]
    assert rows_breaking({"check": "click_without_impression"}, rows) == [2, 3]


@pytest.mark.parametrize("per", ["session_id", "user_id"])
def test_all_events_of_one_that_clicks_too_fast_break(rows_breaking: Marked, per: str) -> None:
    rule = {"check": "fast_clicks", "per": per, "max": 5, "seconds": 10}
    rows = [
        *clicks(6, timedelta(seconds=1), **{per: "bot"}),
        *clicks(6, timedelta(seconds=5), **{per: "person"}),
        *clicks(9, timedelta(0), **{per: None}),
        {"event_type": "purchase", per: "bot"},
    ]
    assert rows_breaking(rule, rows) == [0, 1, 2, 3, 4, 5, 21]


def test_a_user_with_too_many_clicks_in_a_day_breaks(rows_breaking: Marked) -> None:
    rule = {"check": "many_events", "per": "user_id", "max": 5}
    rows = [
        *clicks(6, timedelta(hours=1), user_id="bot"),
        *clicks(5, timedelta(hours=1), user_id="person"),
    ]
    assert rows_breaking(rule, rows) == [0, 1, 2, 3, 4, 5]


def test_a_query_explodes_by_its_sessions_not_by_its_rows(rows_breaking: Marked) -> None:
    rule = {"check": "exploding_query", "max_share": 0.4, "least": 3}
    rows = [
        *[{"session_id": f"s{n}", "query": "campaign"} for n in range(5)],
        *[{"session_id": f"t{n}", "query": f"q{n}"} for n in range(5)],
        *[{"session_id": "one", "query": "obsessed"} for _ in range(50)],
    ]
    assert rows_breaking(rule, rows) == [0, 1, 2, 3, 4]


def test_an_item_that_the_catalogue_lacks_breaks(rows_breaking: Marked) -> None:
    rows = [{"item_id": "i"}, {"item_id": "x"}, {"item_id": None}, {"item_id": "j"}]
    assert rows_breaking({"check": "in_catalogue"}, rows, products=["i", "j"]) == [1]


@pytest.mark.parametrize(
    ("products", "broken"),
    [
        pytest.param(["i"], [2], id="a list that has one of them"),
        pytest.param([], [1, 2], id="no list"),
    ],
)
def test_an_item_is_titled_by_its_event_or_by_the_product_list(
    rows_breaking: Marked, products: list[str], broken: list[int]
) -> None:
    rows = [
        {"item_id": "x", "item_title": "CUP"},
        {"item_id": "i"},
        {"item_id": "x"},
        {"item_id": None},
    ]
    assert rows_breaking({"check": "titled"}, rows, products=products) == broken


def test_an_event_received_too_late_breaks(tmp_path: Path) -> None:
    from reshelve.validation.row_rules import Late

    rule = Late(name="late", description="d", severity="warn", check="late", max_hours=48)
    path = tmp_path / "p.parquet"
    table = pa.Table.from_pylist([{"event_time": NOON}] * 3, schema=EVENT_SCHEMA)
    received = pa.array([NOON + timedelta(hours=h) if h else None for h in (1, 49, 0)], pa.timestamp("us"))
    pq.write_table(table.append_column("received_time", received), path)
    with database(tmp_path / "p.duckdb") as db:
        engine = DuckDBEngine(db, tmp_path / "p.duckdb", [path])
        engine.open_events({"received_time": "TIMESTAMP"})
        assert engine.rows(f"SELECT _row FROM events WHERE {rule.failing('2026-03-02')}") == [(1,)]
