"""Raw files become one immutable object a day."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest

from reshelve.clickstream.events import EVENT_SCHEMA, catalogue_key, landed_prefix
from reshelve.clickstream.landing import land
from reshelve.errors import ConfigurationError, DataError
from reshelve.store.objects import ObjectStore

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
    with pytest.raises(DataError, match="2011-08-01 is landed already with other rows"):
        land("shop")
    assert store.etag(key) == before


def test_a_day_landed_by_something_else_is_refused(
    store: ObjectStore, raw_source: Callable[..., Path]
) -> None:
    raw_source(CSV)
    store.put(landed_prefix("shop", date(2011, 8, 3)) + "theirs.parquet", b"x")
    with pytest.raises(DataError, match=r"2011-08-03 was landed by something else: .*theirs\.parquet"):
        land("shop")


def test_rows_without_a_day_are_counted(raw_source: Callable[..., Path]) -> None:
    raw_source(CSV + ",v9,13,lamp\n")
    done = land("shop")
    assert (done["rows"], done["undated"]) == (4, 1)


def test_days_the_wrong_way_round_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="first day 2011-08-02 is after the last 2011-08-01"):
        land("retail", date(2011, 8, 2), date(2011, 8, 1))


def test_the_catalogue_lands_with_the_events(
    shop_data: Path, store: ObjectStore, read_table: Callable[[str], pa.Table]
) -> None:
    done = land("mobile_search", date(2011, 9, 1), date(2011, 9, 2))
    assert (done["partitions"], done["catalogue"]) == (2, 457)
    table = read_table(catalogue_key("mobile_search"))
    assert table.column_names == ["item_id", "title"]
    assert len(set(table["item_id"].to_pylist())) == 457
