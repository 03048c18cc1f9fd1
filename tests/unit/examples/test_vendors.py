"""The mapping files in include/clickstreams/examples: what vendors export lands, is judged good, and gives examples."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from reshelve.clickstream.events import landed_prefix, validated_prefix
from reshelve.examples.build import build_examples
from reshelve.landing.land import land
from reshelve.settings import PROJECT, settings
from reshelve.store.objects import ObjectStore
from reshelve.validation.validate import validate
from reshelve.validation.verdicts import PartitionDecision, PartitionVerdict, verdict_key

from .conftest import Shop

MAPPINGS = PROJECT / "include" / "clickstreams" / "examples"
AS_TEXT = {
    "00412",
    "0412",
    "412",
    "12E4",
    "1.10",
    "1.1",
    "9007199254740993",
    "0x1F",
}  # ids that look like numbers
FIRST, LAST = date(2024, 3, 9), date(2024, 3, 11)
ESCI = date(2022, 6, 14)
SHOWN = {"labels": "impressions", "attribution_minutes": 30}
JUDGED = {"labels": "judgements", "grades": (0, 3)}
KINDS: dict[str, tuple[str, dict[str, Any], dict[str, float]]] = {
    "ga4": ("pair", SHOWN, {"click": 1.0}),
    "snowplow": ("pair", SHOWN, {"click": 1.0}),
    "snowplow_json": ("pair", SHOWN, {"click": 1.0}),
    "segment": ("pair", SHOWN, {"click": 1.0}),
    "rudderstack": ("pair", SHOWN, {"click": 1.0}),
    "matomo": ("search", {}, {"click": 1.0}),
    "matomo_log": ("search", {}, {"click": 1.0}),
    "shopify_orders": ("next_item", {}, {"purchase": 1.0}),
    "shopify_pixels": ("pair", SHOWN, {"click": 1.0}),
    "rees46": ("next_item", {}, {"click": 0.5, "purchase": 1.0}),
    "retailrocket": ("next_item", {}, {"click": 0.5, "purchase": 1.0}),
    "diginetica": ("pair", SHOWN, {"click": 1.0}),
    "otto": ("next_item", {}, {"click": 0.5, "purchase": 1.0}),
    "esci": ("pair", JUDGED, {"judgement": 1.0}),
}


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the script writes."""
    directory = tmp_path_factory.mktemp("exports")
    subprocess.run([sys.executable, PROJECT / "scripts" / "vendor_samples", directory], check=True)
    return directory


@pytest.fixture
def vendors(shop: Shop, exports: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setenv("RESHELVE_DATA", str(exports))
    monkeypatch.setenv("RESHELVE_CLICKSTREAMS_DIR", str(MAPPINGS))
    settings.cache_clear()
    return shop


def as_validated(store: ObjectStore, source: str, day: date) -> None:
    """What validation leaves of a day without faults, without its seconds: one day of each source is judged for real."""
    (part,) = (store.get(key) for key, _ in store.list(landed_prefix(source, day)))
    assert part is not None
    said = PartitionVerdict(
        verdict=PartitionDecision.PASS, headline="", source=source, partition=day, digest=f"d{day}"
    )
    store.put(validated_prefix(source, day) + "good.parquet", part.body)
    store.put_json(verdict_key(source, day), said.result())


def landed(store: ObjectStore, source: str, directory: Path) -> duckdb.DuckDBPyConnection:
    """The landed rows as the table `events`."""
    directory.mkdir()
    for number, (key, _) in enumerate(store.list(f"clickstream/{source}/")):
        store.download_file(key, directory / f"{number}.parquet")
    db = duckdb.connect()
    db.execute(f"CREATE TABLE events AS FROM read_parquet('{directory}/*.parquet')")
    return db


def one(db: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    (row,) = db.execute(query).fetchall()
    return row


def test_every_mapping_is_tried() -> None:
    assert set(KINDS) == {path.stem for path in MAPPINGS.glob("*.yaml")}


@pytest.mark.slow
@pytest.mark.parametrize("source", KINDS)
def test_an_export_lands_is_judged_good_and_gives_examples(
    source: str, vendors: Shop, tmp_path: Path
) -> None:
    kind, examples, events = KINDS[source]
    first, last = (ESCI, ESCI) if source == "esci" else (FIRST, LAST)
    days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    done = land(source, first, last)
    assert (done["partitions"], done["undated"], done["rejected"], done["refused"]) == (len(days), 0, [], [])
    for day in days[1:]:
        as_validated(vendors.store, source, day)
    judged = validate(source, first)
    assert judged["verdict"] in ("pass", "warn")
    assert (judged["rows_good"] > 0, judged["rows_quarantined"]) == (True, 0), judged["rules"]
    more = {"split": "query"} if examples is JUDGED else {}
    run = vendors.run(kind, last, examples, source=source, events=events, window_days=10, **more)
    metric = "ndcg@10" if examples is JUDGED else "recall@5"
    run = replace(run, ranker=run.ranker.with_values({"gates.metric": metric}))
    result = build_examples(run)
    assert min(result[part] for part in ("train", "validation", "holdout")) > 0, result
    with landed(vendors.store, source, tmp_path / "landed") as db:
        assert one(
            db, "SELECT count(*) = count(DISTINCT event_id), count(session_id) = count(*) FROM events"
        ) == (True, True)
        assert one(db, "SELECT coalesce(min(position), 1) FROM events") == (1,)
        items = {row[0] for row in db.execute("SELECT DISTINCT item_id FROM events").fetchall()}
        assert items >= AS_TEXT or source in ("rees46", "retailrocket", "diginetica", "otto", "esci")


def test_a_property_far_from_utc_whose_visitors_do_not_all_consent(vendors: Shop, tmp_path: Path) -> None:
    """Google Analytics 4 as it is: its days are the property's, and who gave no consent is nobody in particular."""
    done = land("ga4")
    assert (done["partitions"], done["left_out"]) == (3, {"no consent": 48})
    changed = date(2024, 3, 10)  # the clocks change: 23 hours
    judged = validate("ga4", changed)
    assert (judged["rows_good"], judged["rows_quarantined"]) == (judged["rows_in"], 0)
    with landed(vendors.store, "ga4", tmp_path / "landed") as db:
        utc = one(db, "SELECT count(*) FILTER (CAST(event_time AS DATE) > DATE '2024-03-11') FROM events")
        assert utc > (0,), (
            "rows of the last day's evening are of the next in UTC, and in this one all the same"
        )
        assert one(
            db,
            "SELECT max(visitors) FROM (SELECT count(DISTINCT user_id) AS visitors FROM events GROUP BY session_id)",
        ) == (1,)
        orders = (
            "SELECT count(DISTINCT session_id), count(DISTINCT event_type) FROM events WHERE user_id IS NULL"
        )
        assert one(db, orders)[0] > 1, "an order of nobody is a basket of its own"
        assert one(db, orders)[1] == 1
        assert one(
            db, "SELECT count(*) FROM events WHERE '(not set)' IN (category, query, item_title, session_id)"
        ) == (0,)
        assert one(
            db,
            "SELECT min(position), max(position), count(position) FROM events WHERE event_type = 'impression'",
        )[:2] == (1, 6)


def test_days_without_a_key_land_as_well(
    vendors: Shop, exports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quiet day's export has no purchase, no search and nobody logged in: those keys are in none of its rows."""
    quiet = tmp_path / "ga4" / "events_20240309.json.gz"
    quiet.parent.mkdir()
    seen = {
        "event_date": "20240309", "event_timestamp": "1709987041000008", "event_name": "view_item_list",
        "items": [{"item_id": "0412"}], "user_pseudo_id": "1.2",
        "event_params": [{"key": "ga_session_id", "value": {"int_value": "7"}}],
    }  # fmt: skip
    quiet.write_bytes(gzip.compress(json.dumps(seen).encode()))
    monkeypatch.setenv("RESHELVE_DATA", str(tmp_path))
    settings.cache_clear()
    assert land("ga4")["rows"] == 1
