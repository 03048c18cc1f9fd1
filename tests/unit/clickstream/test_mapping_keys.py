"""What a mapping says of a source beyond its columns: whose days, where shelves begin, what is no event, what stands for nothing."""

from __future__ import annotations

import gzip
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reshelve.clickstream.database import connect, database
from reshelve.clickstream.days import day_limits
from reshelve.clickstream.events import EVENT_SCHEMA, landed_prefix
from reshelve.errors import ConfigurationError, DataError
from reshelve.examples import new_ranker
from reshelve.landing import trial
from reshelve.landing.land import land
from reshelve.landing.mapping import map_catalogue, map_events
from reshelve.landing.trial import try_day
from reshelve.raw.sources import load_source
from reshelve.settings import settings
from reshelve.validation.row_rules import Expression
from reshelve.validation.rules import load_rules
from reshelve.validation.validate import validate

EVENING = "2024-03-09T23:30:00-08:00"  # the ninth in Los Angeles, the tenth in UTC
Write = Callable[..., Path]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """`shop(rows, top, **columns)`: JSON lines (or a table: Parquet) and their mapping; `top` are further lines of it."""
    monkeypatch.setenv("RESHELVE_CLICKSTREAMS_DIR", str(tmp_path / "clickstreams"))
    settings.cache_clear()

    def write(rows: list[dict[str, Any]] | pa.Table, *top: str, **columns: str) -> Path:
        if isinstance(rows, pa.Table):
            pq.write_table(rows, tmp_path / "raw.parquet")
        else:
            (tmp_path / "raw.json").write_bytes("".join(json.dumps(row) + "\n" for row in rows).encode())
        keys = dict.fromkeys(EVENT_SCHEMA.names, "NULL") | {
            "event_id": "md5(CAST(source AS VARCHAR))", "event_time": "seen", "event_type": "'click'", "session_id": "visit",
            "item_id": "sku",
        } | columns  # fmt: skip
        kind = "parquet" if isinstance(rows, pa.Table) else "json"
        lines = ["name: shop", f"files: {tmp_path}/raw.{kind}", f"format: {kind}", *top, "columns:"]
        lines += [f"  {key}: {json.dumps(value)}" for key, value in keys.items()]
        path = tmp_path / "clickstreams" / "shop.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
        return path

    yield write
    settings.cache_clear()


def mapped(*columns: str, table: str = "events") -> list[tuple[Any, ...]]:
    with connect() as db, tempfile.TemporaryDirectory() as scratch:
        map_events(db, load_source("shop"), Path(scratch))
        map_catalogue(db, load_source("shop"), Path(scratch))
        order = "row" if table != "left_out" else "reason"
        return db.execute(f"SELECT {', '.join(columns)} FROM {table} ORDER BY {order}").fetchall()


def row(**changes: Any) -> dict[str, Any]:
    return {"seen": EVENING, "visit": "v1", "sku": "00412", **changes}


# --- whose days


def test_a_try_judges_a_day_by_the_clocks_of_its_source(shop: Write) -> None:
    rows = [row(seen=f"2024-03-09T{8 + hour:02}:30:00Z", visit=f"v{hour}") for hour in range(15)]
    late = [row(seen=f"2024-03-10T{hour:02}:30:00Z", visit=f"w{hour}") for hour in range(7)]
    shop([*rows, *late], "time_zone: America/Los_Angeles", event_id="visit", item_title="'cup'")
    tried = try_day("shop", date(2024, 3, 9))
    assert (tried["rows"], tried["quarantined"], tried["left_out"]) == (22, 0, {})


@pytest.mark.parametrize(
    "tries", [lambda: try_day("shop"), lambda: new_ranker._look("shop")], ids=["try", "look"]
)
def test_what_only_looks_keeps_no_row_as_it_came(
    shop: Write, monkeypatch: pytest.MonkeyPatch, tries: Callable[[], Any]
) -> None:
    """What a killed process leaves in its temporary directory is what a night would have landed."""
    seen: list[tuple[str, ...]] = []

    @contextmanager
    def watched(path: Path) -> Iterator[Any]:
        with database(path) as db:
            yield db
            seen.extend(db.execute("SELECT user_id, session_id, query FROM events").fetchall())

    monkeypatch.setenv("RESHELVE_PSEUDONYM_KEYS", "2024-01-01:" + "s" * 16)
    settings.cache_clear()
    monkeypatch.setattr(trial, "database", watched)
    monkeypatch.setattr(new_ranker, "database", watched)
    typed = {"user_id": "visit", "session_id": "visit", "query": "'to ann@shop.example'"}
    shop([row(), row(seen="2024-03-10T09:00:00Z")], event_id="seen", item_title="'cup'", **typed)
    assert tries()
    assert len(seen) == 2
    for user, session, query in seen:
        assert query == "to <e-mail>" and len(user) == len(session) == 32 and "v1" not in (user, session)


@pytest.mark.parametrize(
    ("zone", "day"),
    [("America/Los_Angeles", 9), ("UTC", 10), ("Etc/GMT+7", 10), ("Etc/GMT+8", 9), ("Asia/Tokyo", 10)],
)
def test_a_row_is_of_the_day_that_the_sources_clocks_show(shop: Write, zone: str, day: int) -> None:
    shop([row()], f"time_zone: {zone}")
    assert mapped("day", "event_time") == [(date(2024, 3, day), datetime(2024, 3, 10, 7, 30))]


@pytest.mark.parametrize(
    ("day", "zone", "begins", "hours"),
    [
        ("2024-03-09", "America/Los_Angeles", "2024-03-09 08:00", 24),
        ("2024-03-10", "America/Los_Angeles", "2024-03-10 08:00", 23),
        ("2024-11-03", "America/Los_Angeles", "2024-11-03 07:00", 25),
        ("2024-06-01", "Asia/Kolkata", "2024-05-31 18:30", 24),
        ("2024-04-26", "Africa/Cairo", "2024-04-25 22:00", 23),  # its midnight was skipped
        ("2024-06-01", "UTC", "2024-06-01 00:00", 24),
    ],
)
def test_a_day_is_as_long_as_its_clocks_say(day: str, zone: str, begins: str, hours: int) -> None:
    first, last = day_limits(date.fromisoformat(day), zone)
    assert (first, last - first) == (datetime.fromisoformat(begins), timedelta(hours=hours))
    with connect() as db:  # and the rows of the day are those that DuckDB would put there
        local = f"CAST(timezone('{zone}', CAST(moment AS TIMESTAMPTZ)) AS DATE)"
        moments = ", ".join(
            f"(TIMESTAMP '{moment}')"
            for moment in (first - timedelta(microseconds=1), first, last - timedelta(microseconds=1), last)
        )
        found = db.execute(
            f"SELECT {local} = DATE '{day}' FROM (VALUES {moments}) AS t(moment) ORDER BY moment"
        )
        assert [held for (held,) in found.fetchall()] == [False, True, True, False]


def test_a_day_by_the_sources_clocks_is_judged_by_them(store: Any, shop: Write) -> None:
    """Seven hours of every day of a property at UTC-7 are the next day in UTC: more than a fifth, and the day was stopped."""
    start = datetime(2024, 6, 1, 7, 0)
    rows = [row(seen=f"{start + timedelta(hours=hour)}", visit=f"v{hour}") for hour in range(24)]
    shop(rows, "time_zone: America/Los_Angeles", "event_date: DATE '2024-06-01'")
    assert land("shop")["rows"] == 24
    judged = validate("shop", date(2024, 6, 1))
    assert (judged["rows_good"], judged["rows_quarantined"]) == (24, 0)
    shop(rows, "event_date: DATE '2024-06-01'")  # judged anew, though rows and rules are the same
    judged = validate("shop", date(2024, 6, 1))
    assert (judged["verdict"], judged["reused"]) == ("stop", False)


def test_rules_that_say_partition_mean_the_same_as_before() -> None:
    rule = Expression(
        name="on_day",
        description="x",
        severity="warn",
        check="expression",
        sql="CAST(event_time AS DATE) = $partition",
    )
    assert "DATE '2024-06-01'" in rule.of_day(date(2024, 6, 1), "Asia/Tokyo").failing("2024-06-01")
    digest = load_rules().digest()
    assert load_rules().of_day(date(2024, 6, 1), "Asia/Tokyo").digest() != digest


def test_a_zone_that_is_none_is_refused_with_its_line(shop: Write) -> None:
    path = shop([row()], "time_zone: America/Los_Angles")
    with pytest.raises(ConfigurationError, match=rf"{path}:4: time_zone: .*did you mean America/Los_Angeles"):
        load_source("shop")


# --- where a shelf begins


def test_a_shelf_that_begins_at_0_begins_at_1(shop: Write) -> None:
    rows = [row(place=place) for place in (0, "1", None, 17)]
    shop(rows, "first_position: 0", position="place")
    assert mapped("position") == [(1,), (2,), (None,), (18,)]
    path = shop(rows, "first_position: 2", position="place")
    with pytest.raises(ConfigurationError, match=rf"{path}:4: first_position"):
        load_source("shop")


# --- what is no event


def test_rows_that_are_left_out_are_counted_by_their_reason(store: Any, shop: Write) -> None:
    rows = [
        row(),
        row(visit=None),
        row(visit=None, kind="test"),
        row(kind="test", sku="no number"),
        row(sku="7"),
    ]
    shop(rows, "leave_out: {no consent: visit IS NULL, a test: kind = 'test'}", quantity="sku")
    done = land("shop")
    assert (done["rows"], done["left_out"]) == (2, {"a test": 1, "no consent": 2})
    assert land("shop")["skipped"] == 1  # and is the same when it is landed again


def test_a_condition_that_duckdb_refuses_is_named(shop: Write) -> None:
    path = shop([row()], "leave_out:", "  robots: robot = 'yes'")
    with pytest.raises(ConfigurationError, match=rf"{path}:5: leave_out.robots: .*robot"):
        mapped("day")
    path = shop([row(n="x")], "leave_out:", "  robots: CAST(n AS INTEGER) = 1")
    with pytest.raises((ConfigurationError, DataError), match=rf"{path}:5: leave_out.robots: .*row 1"):
        mapped("day")


# --- an id of unknown parts is unknown


@pytest.mark.parametrize(
    "glued",
    [
        "concat(who, '/', visit)", "CONCAT(who , '/', visit)", "concat_ws('/', who, visit)", "who || '/' || visit",
        "md5(concat(who, '/', concat(visit, '!')))", "CASE WHEN true THEN concat(who, visit) END",
    ],
)  # fmt: skip
def test_who_is_not_known_does_not_share_a_visit(shop: Write, glued: str) -> None:
    shop([row(who="u"), row(who=None), row(who="u", visit=None), row(who=None, visit=None)], session_id=glued)
    ((known,), *others) = mapped("session_id")
    assert known
    assert others == [(None,)] * 3


def test_what_is_glued_is_what_it_was_where_all_is_known(shop: Write) -> None:
    rows = [row(who="1.10", number=7)]
    shop(
        rows,
        session_id="concat(who, '/', number, '/', upper(concat('a', visit)))",
        query="concat(who, missing)",
    )
    top = "options: {types: {missing: VARCHAR}}"
    shop(
        rows,
        top,
        session_id="concat(who, '/', number, '/', upper(concat('a', visit)))",
        query="concat(who, missing)",
    )
    assert mapped("session_id", "query") == [("1.10/7/AV1", "1.10")]  # other columns are DuckDB's own


# --- what stands for nothing

NOTHING = "options: {null_strings: ['(not set)', 'undefined']}"


def test_texts_that_stand_for_nothing_are_null_wherever_they_are(shop: Write) -> None:
    items = [
        {"id": "a", "index": "(not set)", "tags": ["undefined", "x"]},
        {"id": "undefined", "index": "3", "tags": []},
    ]
    shop(
        [row(visit="(not set)", q="about (not set)", items=items, **{"(not set)": 1})],
        NOTHING,
        "rows: SELECT *, unnest(items) AS item FROM raw",
        item_id="item.id", position='item."index"', query="q", item_title="item.tags[1]",
    )  # fmt: skip
    assert mapped("session_id", "item_id", "position", "query", "item_title") == [
        (None, "a", None, "about (not set)", None), (None, None, 3, "about (not set)", None)
    ]  # fmt: skip


def test_they_are_null_before_a_type_is_given(shop: Write) -> None:
    top = "options: {null_strings: ['(not set)'], types: {price: DOUBLE, items: 'STRUCT(n BIGINT)[]'}}"
    shop(
        [row(price="(not set)", items=[{"n": "(not set)"}, {"n": 7}])],
        top,
        price="price",
        quantity="items[2].n",
    )
    assert mapped("price", "quantity") == [(None, 7)]


def test_they_are_null_in_parquet(shop: Write) -> None:
    kind = pa.struct([("id", pa.string()), ("n", pa.int64())])
    table = pa.table(
        {
            "seen": [datetime(2024, 3, 9, 9)] * 2, "visit": ["(not set)", "v"], "sku": ["x", "y"],
            "items": pa.array([[{"id": "undefined", "n": 1}], None], pa.list_(kind)),
            "more": pa.array([[("k", "(not set)")], [("(not set)", "v")]], pa.map_(pa.string(), pa.string())),
        }
    )  # fmt: skip
    shop(table, NOTHING, query="items[1].id", quantity="items[1].n", item_title="map_values(more)[1]")
    assert mapped("session_id", "query", "quantity", "item_title") == [
        (None, None, 1, None),
        ("v", None, None, "v"),
    ]


# --- objects within a text, and a product list of several rows a product


def test_json_within_a_field_keeps_its_numbers(shop: Write, tmp_path: Path) -> None:
    path = shop([], item_id="told ->> '$[0].sku'", price="told ->> '$[0].price'", query="told ->> '$[1]'")
    fields = ['[{"sku": 12E4, "price": 1.10}, "a 1.10\\" b"]', '[{"sku": 9007199254740993}]', ""]
    body = "\n".join(["seen\tvisit\ttold", *(f"{EVENING}\tv\t{field}" for field in fields)])
    (tmp_path / "raw.tsv.gz").write_bytes(gzip.compress(body.encode()))
    text = path.read_text().replace("raw.json", "raw.tsv.gz").replace("format: json", "format: csv")
    options = 'options: {delimiter: "\\t", quote: "", types: {told: JSON}}'
    path.write_text(text.replace("columns:", f"{options}\ncolumns:"))
    assert mapped("item_id", "price", "query") == [
        ("12E4", 1.1, 'a 1.10" b'), ("9007199254740993", None, None), (None, None, None)
    ]  # fmt: skip


def test_a_product_list_may_have_several_rows_a_product(shop: Write, tmp_path: Path) -> None:
    (tmp_path / "products.csv").write_text("handle,title,sku\nmug,Mug,'0412\nmug,,412\nmug,,\n")
    listed = f"catalogue: {{files: {tmp_path}/products.csv, format: csv, item_id: \"ltrim(sku, '''')\", title: named,"
    shop([row()], f"{listed} rows: 'SELECT *, max(title) OVER (PARTITION BY handle) AS named FROM raw'}}")
    assert sorted(mapped("item_id", "title", table="products"), key=str) == [
        ("0412", "Mug"), ("412", "Mug"), (None, "Mug")
    ]  # fmt: skip
    path = shop([row()], f"{listed} rows: SELECT nothing FROM raw}}")
    with pytest.raises(ConfigurationError, match=rf"{path}:4: catalogue.rows: .*nothing"):
        mapped("item_id", table="products")


def test_the_landed_days_are_the_sources(store: Any, shop: Write) -> None:
    shop([row(), row(seen="2024-03-09T07:59:00Z", visit="v2")], "time_zone: America/Los_Angeles")
    assert land("shop")["partitions"] == 2
    for day in ("2024-03-08", "2024-03-09"):
        assert [key for key, _ in store.list(landed_prefix("shop", date.fromisoformat(day)))]
