"""What a fault in a partition leads to: which verdict, which words, which rows."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reshelve.clickstream.database import database
from reshelve.clickstream.events import EVENT_SCHEMA, landed_prefix
from reshelve.store.objects import ObjectStore
from reshelve.validation import quarantine
from reshelve.validation.engine import DuckDBEngine
from reshelve.validation.rules import load_rules
from reshelve.validation.validate import validate, validate_range
from reshelve.validation.verdicts import (
    PartitionDecision,
    PartitionVerdict,
    read_verdict,
    validated_partitions,
    verdict_key,
)

DAY = date(2011, 8, 1)
RULES = load_rules()


def good_rows_key(result: dict[str, Any]) -> str:
    return PartitionVerdict.model_validate({k: v for k, v in result.items() if k != "reused"}).file(
        "good.parquet"
    )


def quarantine_key(result: dict[str, Any]) -> str:
    return good_rows_key(result).replace("good.parquet", "quarantine.parquet")


Events = Callable[..., pa.Table]
Land = Callable[..., None]


def as_parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def broken(result: dict[str, Any]) -> dict[str, int | None]:
    return {rule["rule"]: rule["failed_rows"] for rule in result["rules"]}


def assert_stopped(store: ObjectStore, result: dict[str, Any]) -> None:
    assert result["verdict"] == "stop"
    assert result["rows_good"] == 0
    assert not store.exists(good_rows_key(result))
    verdict = read_verdict(store, "retail", DAY)
    assert verdict is not None
    assert verdict.verdict is PartitionDecision.STOP
    assert not verdict.usable
    assert store.exists(landed_prefix("retail", DAY) + "part-0.parquet")


def test_blanks_of_own_partitions_are_unknown(
    store: ObjectStore, events: Events, land_bytes: Land, read_table: Callable[[str], pa.Table]
) -> None:
    land_bytes(
        events(
            40,
            {
                3: {"item_id": " "},
                5: {"session_id": "", "event_id": "\u00a0"},
                7: {"query": "\t", "user_id": ""},
            },
        )
    )
    result = validate("retail", DAY)
    assert broken(result) == {"event_id_known": 1, "item_known": 1, "session_known": 1}
    aside = read_table(quarantine_key(result))
    assert aside["broken_rules"].to_pylist() == [["item_known"], ["event_id_known", "session_known"]]
    good = read_table(good_rows_key(result)).to_pylist()
    assert [(row["query"], row["user_id"]) for row in good if row["event_id"] == "e7"] == [(None, None)]


def test_a_clean_partition_passes_with_every_row(
    store: ObjectStore, events: Events, land_bytes: Land, read_table: Callable[[str], pa.Table]
) -> None:
    table = events(40)
    land_bytes(table)
    result = validate("retail", DAY)
    assert (result["verdict"], result["rows_in"], result["rows_good"], result["rules"]) == (
        "pass",
        40,
        40,
        [],
    )
    good = read_table(good_rows_key(result))
    assert good.schema.equals(EVENT_SCHEMA)
    assert good.equals(table)
    assert len(read_table(quarantine_key(result))) == 0


QUARANTINED = {
    "no event id": ({"event_id": None}, "event_id_known"),
    "no item": ({"item_id": None}, "item_known"),
    "no session": ({"session_id": None}, "session_known"),
    "no time": ({"event_time": None}, "event_time_known"),
    "another day": ({"event_time": datetime(2011, 8, 2)}, "event_in_partition"),
    "unknown type": ({"event_type": "purchas"}, "event_type_known"),
    "no type": ({"event_type": None}, "event_type_given"),
    "delivered twice": ({"event_id": "e3"}, "event_once"),
    "nothing bought": ({"quantity": 0}, "quantity_possible"),
    "no price": ({"price": 0.0}, "price_possible"),
    "position zero": ({"position": 0}, "position_possible"),
    "pasted query": ({"query": "x" * 257}, "query_length"),
}


def test_each_bad_row_is_set_aside_under_its_rule(
    store: ObjectStore, events: Events, land_bytes: Land, read_table: Callable[[str], pa.Table]
) -> None:
    """One partition with every fault once: 12 of 240 rows, so neither share rule is broken."""
    rows = dict(zip(range(20, 240, 18), QUARANTINED.values(), strict=False))
    assert len(rows) == len(QUARANTINED)
    land_bytes(events(240, {row: change for row, (change, _) in rows.items()}))
    result = validate("retail", DAY)
    assert result["verdict"] == "pass"
    assert broken(result) == {rule: 1 for _, rule in rows.values()}
    assert (result["rows_good"], result["rows_quarantined"]) == (228, 12)
    aside = read_table(quarantine_key(result))
    assert aside["broken_rules"].to_pylist() == [[rule] for _, rule in rows.values()]
    assert "e3" in read_table(good_rows_key(result))["event_id"].to_pylist()  # the first delivery stays


def test_a_return_may_have_a_negative_quantity(events: Events, land_bytes: Land) -> None:
    land_bytes(events(40, {5: {"event_type": "return", "quantity": -3}}))
    assert validate("retail", DAY)["rows_quarantined"] == 0


def test_many_titles_missing_is_a_warning_and_all_rows_are_used(events: Events, land_bytes: Land) -> None:
    land_bytes(events(40, {row: {"item_title": None} for row in range(4)}))
    result = validate("retail", DAY)
    assert (result["verdict"], result["rows_good"]) == ("warn", 40)
    assert "warning: 4 of 40 rows: the item has a title neither" in result["headline"]


def test_too_many_bad_rows_stop_the_day_and_are_kept_for_inspection(
    store: ObjectStore, events: Events, land_bytes: Land, read_table: Callable[[str], pa.Table]
) -> None:
    land_bytes(events(40, {row: {"item_id": None} for row in range(10)}))
    result = validate("retail", DAY)
    assert_stopped(store, result)
    assert "10 of 40 rows (25.0%) are bad; at most 20.0% may be" in result["headline"]
    aside = read_table(quarantine_key(result))
    assert len(aside) == result["rows_quarantined"] == 40
    assert sum(names == ["item_known"] for names in aside["broken_rules"].to_pylist()) == 10


def unreadable(table: pa.Table) -> dict[str, tuple[pa.Table | bytes, str]]:
    whole = as_parquet(table)
    damaged = bytearray(whole)
    damaged[60:160] = bytes(100)
    text_price = table.set_column(10, "price", pc.cast(table["price"], pa.string()))
    return {
        "wrong type": (text_price, "column price is VARCHAR; expected DOUBLE or FLOAT"),
        "missing column": (table.drop_columns(["item_id", "price"]), "columns missing: item_id, price"),
        "no rows": (table.slice(0, 0), "the partition has 0 rows: fewer than 1 rows"),
        "0 bytes": (b"", "part-0.parquet is empty (0 bytes)"),
        "truncated": (whole[: len(whole) // 2], "part-0.parquet is not a complete Parquet file"),
        "no Parquet": (b"event_id,item_id\n1,2\n", "part-0.parquet is not a complete Parquet file"),
        "damaged inside": (bytes(damaged), "part-0.parquet"),
    }


@pytest.mark.parametrize(
    "fault",
    ["wrong type", "missing column", "no rows", "0 bytes", "truncated", "no Parquet", "damaged inside"],
)
def test_a_partition_that_cannot_be_judged_stops_in_plain_words(
    store: ObjectStore, events: Events, land_bytes: Land, fault: str
) -> None:
    content, message = unreadable(events(40))[fault]
    land_bytes(content)
    result = validate("retail", DAY)
    assert_stopped(store, result)
    assert result["headline"].startswith("retail 2011-08-01 must not be used: ")
    assert message in result["headline"]


def test_a_second_file_with_other_columns_is_named(
    store: ObjectStore, events: Events, land_bytes: Land
) -> None:
    land_bytes(events(40))
    land_bytes(events(40).drop_columns(["query"]), "part-1.parquet")
    result = validate("retail", DAY)
    assert_stopped(store, result)
    assert (
        "part-1.parquet has other columns than part-0.parquet: query missing instead of VARCHAR"
        in result["headline"]
    )


def test_nothing_landed_is_missing_and_leaves_nothing(store: ObjectStore) -> None:
    result = validate("retail", DAY)
    assert (result["verdict"], result["headline"]) == ("missing", "retail 2011-08-01: nothing has landed")
    assert read_verdict(store, "retail", DAY) is None


def test_the_same_data_is_not_judged_twice_and_other_data_is(
    store: ObjectStore, events: Events, land_bytes: Land
) -> None:
    land_bytes(events(40))
    first = validate("retail", DAY)
    written = store.etag(verdict_key("retail", DAY))
    assert validate("retail", DAY) == {**first, "reused": True}
    assert store.etag(verdict_key("retail", DAY)) == written
    land_bytes(b"")
    second = validate("retail", DAY)
    assert not second["reused"]
    assert_stopped(store, second)


def test_one_broken_day_does_not_stop_the_others(
    store: ObjectStore, events: Events, land_bytes: Land
) -> None:
    land_bytes(b"")
    for later in (1, 3):
        day = DAY + timedelta(days=later)
        table = events(40, {row: {"event_time": datetime(2011, 8, 1 + later)} for row in range(40)})
        store.put(landed_prefix("retail", day) + "part-0.parquet", as_parquet(table))
    result = validate_range("retail")
    assert (result["verdict"], result["partitions"], result["missing"]) == ("pass", 3, ["2011-08-03"])
    assert [day["verdict"] for day in result["verdicts"]] == ["stop", "pass", "pass"]
    assert "1 stopped" in result["headline"]
    found = validated_partitions(store, "retail", date(2011, 8, 2), date(2011, 8, 31))
    assert [verdict.partition for verdict in found] == [date(2011, 8, 2), date(2011, 8, 4)]
    assert validate_range("retail", DAY, DAY)["verdict"] == "stop"
    assert validate_range("retail", date(2011, 9, 1), date(2011, 9, 2))["verdict"] == "missing"


def test_a_day_is_compared_with_the_days_before_it_alone(store: ObjectStore, events: Events) -> None:
    """As a backfill judges: later days are there already, and earlier ones may come afterwards."""
    for place in range(-2, 3):
        day = DAY + timedelta(days=place)
        at = {"event_time": datetime(day.year, day.month, day.day, 9)}
        table = events(40, dict.fromkeys(range(40), at))
        store.put(landed_prefix("retail", day) + "part-0.parquet", as_parquet(table))
    for place, earlier in ((1, 0), (2, 1), (0, 0), (-2, 0), (-1, 1)):
        result = validate("retail", DAY + timedelta(days=place))
        assert (result["verdict"], result["compared_with"]) == ("pass", earlier), place
    again = validate("retail", DAY)
    assert (again["reused"], again["compared_with"]) == (True, 0), "a day that was judged stays as it is"


def in_order(row: dict[str, Any]) -> str:
    return repr(sorted(row.items()))  # as text: NaN equals itself


maybe = st.sampled_from


@st.composite
def partitions(draw: st.DrawFn) -> list[dict[str, Any]]:
    row = st.fixed_dictionaries(
        {
            "event_id": maybe([None, "a", "b", "c", "d"]),
            "event_time": maybe(
                [None, datetime(2011, 8, 1), datetime(2011, 8, 1, 23, 59, 59), datetime(2011, 8, 2)]
            ),
            "event_type": maybe([None, "purchase", "return", "click", "judgement", "", "PURCHASE"]),
            "user_id": maybe([None, "u"]),
            "session_id": maybe([None, "s", ""]),
            "query": maybe([None, "q", "x" * 300]),
            "item_id": maybe([None, "i"]),
            "item_title": maybe([None, "t"]),
            "position": maybe([None, 0, 1, 99999]),
            "quantity": maybe([None, -1, 0, 1, 2**40]),
            "price": maybe([None, -1.0, 0.0, 1.0, float("nan"), float("inf")]),
            "grade": maybe([None, 1.0, 2.33, float("nan")]),
            "category": maybe([None, "c"]),
            "segment": maybe([None, "s"]),
        }
    )
    return draw(st.lists(row, max_size=12))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=partitions())
def test_every_row_is_in_exactly_one_file(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    (tmp_path / "p.duckdb").unlink(missing_ok=True)
    landed = tmp_path / "landed.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=EVENT_SCHEMA), landed)
    with database(tmp_path / "p.duckdb") as db:
        engine = DuckDBEngine(db, tmp_path / "p.duckdb", [landed])
        engine.open_events({})
        quarantine.mark(engine, RULES, RULES.quarantine, "2011-08-01")
        split = quarantine.split(engine, RULES, tmp_path, len(rows))
    good = pq.read_table(tmp_path / "good.parquet").to_pylist()
    aside = pq.read_table(tmp_path / "quarantine.parquet").to_pylist()
    assert (len(rows), len(good), len(aside)) == (split.rows_in, split.rows_good, split.rows_quarantined)
    assert all(row["broken_rules"] for row in aside)
    unmarked = [{key: value for key, value in row.items() if key != "broken_rules"} for row in aside]
    known = [{key: None if value == "" else value for key, value in row.items()} for row in rows]
    assert sorted(map(in_order, good + unmarked)) == sorted(map(in_order, known))
    assert len({row["event_id"] for row in good}) == len(good)


def test_what_another_program_landed_is_masked_in_both_files(
    store: ObjectStore, events: Events, land_bytes: Land, read_table: Callable[[str], pa.Table]
) -> None:
    land_bytes(
        events(40, {3: {"query": "to ann@shop.example"}, 4: {"query": "4111111111111111", "item_id": None}})
    )
    result = validate("retail", DAY)
    good, aside = read_table(good_rows_key(result)), read_table(quarantine_key(result))
    assert result["masked"] == 2
    assert "to <e-mail>" in good["query"].to_pylist() and aside["query"].to_pylist() == ["<card>"]
    assert good.schema.equals(EVENT_SCHEMA)
