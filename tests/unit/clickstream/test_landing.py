"""Raw files become one immutable object a day."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest

from reshelve.clickstream.database import connect
from reshelve.clickstream.events import EVENT_SCHEMA, catalogue_key, landed_prefix
from reshelve.clickstream.privacy import protect
from reshelve.errors import ConfigurationError, DataError, PartlyDoneError
from reshelve.landing.land import land
from reshelve.settings import PROJECT, settings
from reshelve.store.objects import ObjectStore

from .conftest import as_parquet

CSV = (
    "seen,visit,sku,q\n2011-08-01 09:00:00,v1,11,teapot\n2011-08-01 09:05:00,v1,12,cup\n"
    "2011-08-03 10:00:00,v2,12,cup\n2011-08-03 10:00:00,v2,12,cup\n"
)


def test_a_week_of_the_sample_lands_without_its_saturday(
    store: ObjectStore, read_table: Callable[[str], pa.Table]
) -> None:
    done = land("retail", date(2011, 7, 29), date(2011, 8, 1))
    assert (done["partitions"], done["skipped"], done["undated"]) == (3, 0, 0)
    assert store.folders("clickstream/retail/") == ["dt=2011-07-29", "dt=2011-07-31", "dt=2011-08-01"]
    table = read_table(landed_prefix("retail", date(2011, 8, 1)) + "part-0.parquet")
    assert table.schema.equals(EVENT_SCHEMA)
    assert set(table["event_type"].to_pylist()) == {"purchase", "return"}
    assert {when.date() for when in table["event_time"].to_pylist()} == {date(2011, 8, 1)}


def test_landing_twice_changes_nothing(store: ObjectStore, raw_source: Callable[..., Path]) -> None:
    raw_source(CSV)
    first = land("shop")
    before = [(key, store.etag(key)) for key, _ in store.list("clickstream/")]
    assert land("shop") == {**first, "skipped": first["partitions"]}
    assert [(key, store.etag(key)) for key, _ in store.list("clickstream/")] == before


def test_a_row_delivered_twice_keeps_one_id(
    raw_source: Callable[..., Path], read_table: Callable[[str], pa.Table]
) -> None:
    raw_source(CSV)
    land("shop")
    table = read_table(landed_prefix("shop", date(2011, 8, 3)) + "part-0.parquet")
    assert len(table) == 2
    assert len(set(table["event_id"].to_pylist())) == 1


def test_other_rows_for_a_landed_day_are_refused(store: ObjectStore, raw_source: Callable[..., Path]) -> None:
    raw_source(CSV)
    land("shop")
    key = landed_prefix("shop", date(2011, 8, 1)) + "part-0.parquet"
    before = store.etag(key)
    raw_source(CSV.replace("teapot", "kettle"))
    with pytest.raises(DataError, match="2011-08-01 has already landed with other rows") as told:
        land("shop")
    assert store.etag(key) == before

    prefix = landed_prefix("shop", date(2011, 8, 1))
    assert f"aws s3 rm --recursive {store.uri(prefix)}" in str(told.value)
    store.delete([key for key, _ in store.list(prefix)])  # as the how-to has it
    land("shop")
    assert store.etag(key) != before


def test_a_refused_day_keeps_no_other_from_landing(
    store: ObjectStore, raw_source: Callable[..., Path], read_table: Callable[[str], pa.Table]
) -> None:
    raw_source(CSV)
    land("shop")
    late = "2011-08-01 23:00:00,v7,13,lamp\n"  # the file of the first day is gone
    raw_source("seen,visit,sku,q\n" + late + "2011-08-04 10:00:00,v8,12,cup\n")
    done = subprocess.run(
        [sys.executable, "-m", "reshelve.cli", "land", "--source", "shop", "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 73, done.stderr
    assert "reshelve: shop: 2011-08-01 has already landed with other rows" in done.stderr
    assert "the other 1 days of shop are landed" in done.stderr
    said = json.loads(done.stdout)
    assert (said["partitions"], said["rows"]) == (1, 1)
    assert [refused["day"] for refused in said["refused"]] == ["2011-08-01"]
    table = read_table(landed_prefix("shop", date(2011, 8, 4)) + "part-0.parquet")
    assert table["session_id"].to_pylist() == ["v8"]


def test_where_every_day_is_refused_the_data_is_bad(raw_source: Callable[..., Path]) -> None:
    raw_source(CSV)
    land("shop")
    raw_source(CSV.replace("cup", "mug").replace("teapot", "kettle"))
    with pytest.raises(DataError, match="already landed with other rows") as caught:
        land("shop")
    assert not isinstance(caught.value, PartlyDoneError)


def test_rows_that_were_landed_under_other_ids_are_the_same_rows(
    store: ObjectStore, raw_source: Callable[..., Path], read_table: Callable[[str], pa.Table]
) -> None:
    """Ids are digests of raw rows, and those were read otherwise before; blanks were landed as they were."""
    raw_source(CSV, event_id="sku", user_id="''")
    land("shop")
    landed = {day: read_table(landed_prefix("shop", date(2011, 8, day)) + "part-0.parquet") for day in (1, 3)}
    blank = landed[1].set_column(3, "user_id", pa.array([" "] * len(landed[1])))
    store.put(landed_prefix("shop", date(2011, 8, 1)) + "part-0.parquet", as_parquet(blank))
    raw_source(CSV + "2011-08-03 11:00:00,v7,13,lamp\n", user_id="''")
    done = land("shop")
    assert (done["skipped"], done["late"], done["refused"]) == (1, 1, [])
    late = read_table(landed_prefix("shop", date(2011, 8, 3)) + "part-1.parquet")
    assert late["session_id"].to_pylist() == ["v7"]
    assert late["event_id"].null_count == 0


def test_a_day_landed_by_something_else_is_refused(
    store: ObjectStore, raw_source: Callable[..., Path]
) -> None:
    raw_source(CSV)
    store.put(landed_prefix("shop", date(2011, 8, 3)) + "theirs.parquet", b"x")
    with pytest.raises(
        PartlyDoneError, match=r"2011-08-03 was landed by something else: .*theirs\.parquet"
    ) as told:
        land("shop")
    assert f"aws s3 rm --recursive {store.uri(landed_prefix('shop', date(2011, 8, 3)))}" in str(told.value)
    assert store.exists(landed_prefix("shop", date(2011, 8, 1)) + "part-0.parquet")


def test_rows_without_a_day_are_counted(raw_source: Callable[..., Path]) -> None:
    raw_source(CSV + ",v9,13,lamp\n")
    done = land("shop")
    assert (done["rows"], done["undated"]) == (4, 1)


def test_days_the_wrong_way_round_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="first day 2011-08-02 is after the last day 2011-08-01"):
        land("retail", date(2011, 8, 2), date(2011, 8, 1))


def test_the_catalogue_lands_with_the_events(
    shop_data: Path, store: ObjectStore, read_table: Callable[[str], pa.Table]
) -> None:
    done = land("mobile_search", date(2011, 9, 1), date(2011, 9, 2))
    assert (done["partitions"], done["catalogue"]["items"]) == (2, 457)
    table = read_table(catalogue_key("mobile_search"))
    assert table.column_names == ["item_id", "title"]
    assert len(set(table["item_id"].to_pylist())) == 457


def test_what_changed_in_the_catalogue_is_told(raw_source: Callable[..., Path], tmp_path: Path) -> None:
    mapping, listed = raw_source(CSV), tmp_path / "products.csv"
    lines = [f"catalogue: {{files: {listed}, format: csv, item_id: CAST(sku AS VARCHAR), title: title}}"]
    mapping.write_text(mapping.read_text() + "\n".join(lines) + "\n")
    listed.write_text("sku,title\n1,pot\n2,cup\n3,\n4,tray\n")
    assert land("shop")["catalogue"] == {"items": 4, "untitled": 1, "new": 0, "gone": 0, "retitled": 0}
    listed.write_text("sku,title\n1,pot\n2,mug\n3,lid\n5,\n6,jug\n")
    assert land("shop")["catalogue"] == {"items": 5, "untitled": 1, "new": 2, "gone": 1, "retitled": 2}
    assert land("shop")["catalogue"] == {"items": 5, "untitled": 1, "new": 0, "gone": 0, "retitled": 0}


def test_rows_that_come_late_become_a_further_object(
    store: ObjectStore, raw_source: Callable[..., Path], read_table: Callable[[str], pa.Table]
) -> None:
    raw_source(CSV)
    land("shop")
    raw_source(CSV + "2011-08-01 23:00:00,v7,13,lamp\n")
    done = land("shop")
    assert (done["late"], done["skipped"]) == (1, 1)
    prefix = landed_prefix("shop", date(2011, 8, 1))
    assert read_table(prefix + "part-1.parquet")["session_id"].to_pylist() == ["v7"]
    assert len(read_table(prefix + "part-0.parquet")) == 2
    assert land("shop")["skipped"] == 2


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    def use(value: str) -> None:
        monkeypatch.setenv("RESHELVE_PSEUDONYM_KEYS", value)
        settings.cache_clear()

    yield use
    settings.cache_clear()


def test_ids_are_pseudonyms_by_the_key_of_their_day(
    store: ObjectStore,
    raw_source: Callable[..., Path],
    read_table: Callable[[str], pa.Table],
    keys: Callable[[str], None],
) -> None:
    raw_source(CSV.replace("v2", "v1"), user_id="nullif(visit, 'v9')")
    keys("2000-01-01:first-secret-of-ours,2011-08-02:second-secret-of-ours")
    land("shop")
    early, later = (
        read_table(landed_prefix("shop", date(2011, 8, day)) + "part-0.parquet") for day in (1, 3)
    )
    assert len(set(early["session_id"].to_pylist())) == 1
    assert early["session_id"][0] != later["session_id"][0]  # one visitor, two keys
    assert all(len(one) == 32 and one != "v1" for one in early["user_id"].to_pylist())
    assert land("shop")["skipped"] == 2  # the same day has the same key, whenever it is landed


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        pytest.param("my-secret-of-16-letters", "entry 1 does not begin with a day", id="no day"),
        pytest.param("2011-01-01:tiny!", "2011-01-01 is shorter than 16", id="too short"),
    ],
)
def test_a_wrong_key_is_refused_and_not_told(
    raw_source: Callable[..., Path], keys: Callable[[str], None], value: str, problem: str
) -> None:
    raw_source(CSV)
    keys(value)
    with pytest.raises(ConfigurationError, match=problem) as caught:
        land("shop")
    assert value.rpartition(":")[2] not in str(caught.value)


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("mail ann.b@shop.example now", "mail <e-mail> now"),
        ("4111 1111 1111 1111", "<card>"),
        ("4111-1111-1111-1111", "<card>"),
        ("call +44 20 7946 0958", "call <phone>"),
        ("555-867-5309", "<phone>"),
        ("(020) 7946 0958", "<phone>"),
        ("9755322", "9755322"),
        ("012345678905", "012345678905"),
        ("size 10 - 12", "size 10 - 12"),
        ("nikon d3100 18-55", "nikon d3100 18-55"),
    ],
)
def test_queries_lose_personal_data_and_nothing_else(typed: str, kept: str) -> None:
    with connect() as db:
        db.execute("CREATE TABLE events (day DATE, query VARCHAR, user_id VARCHAR, session_id VARCHAR)")
        db.execute("INSERT INTO events VALUES (DATE '2011-08-01', ?, 'u', 's')", [typed])
        protect(db)
        assert db.execute("SELECT query, user_id FROM events").fetchone() == (kept, "u")


def test_a_day_that_landed_when_less_was_masked_is_the_same_day(
    store: ObjectStore, raw_source: Callable[..., Path], read_table: Callable[[str], pa.Table]
) -> None:
    raw_source(CSV.replace("teapot", "4111111111111111"))
    land("shop")
    key = landed_prefix("shop", date(2011, 8, 1)) + "part-0.parquet"
    table = read_table(key)
    queries = ["4111111111111111" if query == "<card>" else query for query in table["query"].to_pylist()]
    before = table.set_column(table.schema.get_field_index("query"), "query", pa.array(queries))
    assert not before.equals(table)
    store.put(key, as_parquet(before.cast(EVENT_SCHEMA)))
    done = land("shop")
    assert (done["skipped"], done["refused"], done["late"]) == (2, [], 0)
    assert done["masked"] == queries.count("4111111111111111") > 0


def ga4_event(
    name: str, second: int, items: list[dict[str, object]], term: str | None = None
) -> dict[str, object]:
    """A row of Google Analytics 4's export, as JSON."""
    params = [{"key": "ga_session_id", "value": {"int_value": 7, "string_value": None}}]
    if term:
        params.append({"key": "search_term", "value": {"int_value": None, "string_value": term}})
    return {
        "event_date": "20110801", "event_timestamp": 1312189200000000 + second * 1_000_000, "event_name": name,
        "user_pseudo_id": "u.1", "event_params": params, "device": {"category": "mobile"}, "items": items,
    }  # fmt: skip


def test_the_mapping_of_the_how_to_page_takes_events_with_several_items_apart(
    store: ObjectStore, read_table: Callable[[str], pa.Table], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (PROJECT / "docs" / "how-to" / "use-your-own-clickstream.md").read_text()
    (block,) = [found for found in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "rows:" in found]
    monkeypatch.setenv("RESHELVE_CLICKSTREAMS_DIR", str(tmp_path))
    settings.cache_clear()
    (tmp_path / "shop_ga4.yaml").write_text(block.replace("include/sample_data", str(tmp_path)))
    pot, cup = (
        {"item_id": name, "item_name": f"the {name}", "item_list_index": place, "quantity": None, "price": 2.5,
         "item_category": "tea"}
        for place, name in enumerate(("pot", "cup"), 1)
    )  # fmt: skip
    rows = [
        ga4_event("view_item_list", 0, [pot, cup], "tea"),
        ga4_event("select_item", 5, [cup], "tea"),
        ga4_event("page_view", 6, []),
        ga4_event("purchase", 60, [pot | {"quantity": 2}, cup | {"quantity": 1}]),
    ]
    with gzip.open(tmp_path / "ga4-1.json.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    assert land("shop_ga4")["rows"] == 5
    table = read_table(landed_prefix("shop_ga4", date(2011, 8, 1)) + "part-0.parquet")
    shown = [(r["event_type"], r["item_id"], r["position"], r["query"]) for r in table.to_pylist()]
    assert sorted(shown[:2]) == [("impression", "cup", 2, "tea"), ("impression", "pot", 1, "tea")]
    assert shown[2] == ("click", "cup", 2, "tea")
    assert {(r["event_type"], r["item_id"], r["quantity"]) for r in table.to_pylist()[3:]} == {
        ("purchase", "pot", 2), ("purchase", "cup", 1)
    }  # fmt: skip
    assert len(set(table["event_id"].to_pylist())) == 5
    assert set(table["segment"].to_pylist()) == {"mobile"}
    assert set(table["category"].to_pylist()) == {"tea"}


def test_a_query_for_rows_that_duckdb_refuses_is_named(raw_source: Callable[..., Path]) -> None:
    path = raw_source(CSV)
    path.write_text(path.read_text().replace("event_date:", "rows: SELECT nothing FROM raw\nevent_date:"))
    with pytest.raises(ConfigurationError, match=r"shop.yaml:4: rows: .*nothing"):
        land("shop")


def test_a_query_for_rows_may_have_tables_of_its_own(raw_source: Callable[..., Path]) -> None:
    plain = land("shop") if raw_source(CSV) else {}
    path = raw_source(CSV)
    query = "rows: |\n  WITH twice AS (SELECT * FROM raw)  -- a comment\n  SELECT * FROM twice -- and another\nevent_date:"
    path.write_text(path.read_text().replace("event_date:", query))
    assert land("shop")["rows"] == plain["rows"]
