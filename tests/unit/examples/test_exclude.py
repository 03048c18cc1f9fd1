"""What is sold but is no product, by id, title and category."""

from __future__ import annotations

from datetime import datetime

import duckdb
import pyarrow.parquet as pq
import pytest

from reshelve.config.ranker import Exclude
from reshelve.examples.build import build_examples
from reshelve.examples.catalogue import Catalogue
from reshelve.examples.exclude import leave_out
from reshelve.examples.formats import read_holdout

LINES = [
    *[("FEE-1", "Postage", "service")] * 2, ("FEE-1", "WHITE MUG", "kitchen"),
    *[("mug", "WHITE MUG", "kitchen")] * 2, ("mug", "postage", None),  # mistyped once
    ("half", "50% OFF", None), ("half2", "50 EURO OFF", None), ("a_b", "tray", None), ("axb", "tray, red", None),
    ("bare", None, None), (None, "postage", None),
]  # fmt: skip


def left(
    products: dict[str, str] | None = None, **exclude: list[str]
) -> tuple[set[str | None], dict[str, int]]:
    db = duckdb.connect()
    db.execute("CREATE TABLE all_files (item_id VARCHAR, item_title VARCHAR, category VARCHAR)")
    db.executemany("INSERT INTO all_files VALUES (?, ?, ?)", LINES)
    db.execute("CREATE TABLE products (item_id VARCHAR, title VARCHAR)")
    if products:
        db.executemany("INSERT INTO products VALUES (?, ?)", list(products.items()))
    fits = leave_out(db, Exclude(**exclude))
    found = db.execute("SELECT item_id FROM files UNION SELECT item_id FROM products").fetchall()
    return {item for (item,) in found}, fits


ALL = {item for item, _, _ in LINES}


@pytest.mark.parametrize(
    ("exclude", "gone"),
    [
        pytest.param({}, set(), id="nothing named"),
        pytest.param({"items": ["fee-1"]}, {"FEE-1"}, id="an id, in any case"),
        pytest.param({"items": ["FEE*"]}, {"FEE-1"}, id="ids that begin alike"),
        pytest.param({"titles": ["postage"]}, {"FEE-1"}, id="the usual title, not one line's"),
        pytest.param({"titles": [" Postage "]}, {"FEE-1"}, id="blanks around"),
        pytest.param({"titles": ["50% off"]}, {"half"}, id="percent is percent"),
        pytest.param({"items": ["a_b"]}, {"a_b"}, id="underscore is underscore"),
        pytest.param({"categories": ["service"]}, {"FEE-1"}, id="the usual category"),
        pytest.param({"titles": ["*off"], "items": ["bare"]}, {"half", "half2", "bare"}, id="several"),
        pytest.param({"titles": ["post"]}, set(), id="a part is not the whole"),
    ],
)
def test_what_is_named_is_nowhere(exclude: dict[str, list[str]], gone: set[str]) -> None:
    found, _ = left(**exclude)
    assert found == ALL - gone


def test_the_product_list_has_the_last_word_on_titles_and_loses_its_services_too() -> None:
    products = {"mug": "Postage to France", "unsold": "postage, express", "FEE-1": "A fee"}
    found, fits = left(products, titles=["postage*"])
    assert found == ALL - {"mug"}
    assert fits == {"titles: postage*": 2}


def test_it_is_told_how_much_each_pattern_fits() -> None:
    _, fits = left(titles=["postage", "*off", "no such"], items=["mug"])
    assert fits == {"items: mug": 1, "titles: postage": 1, "titles: *off": 2, "titles: no such": 0}


def test_no_stage_after_it_sees_a_service(shop, day_of):
    for number in range(3):
        day = day_of(number)
        at = datetime.combine(day, datetime.min.time())
        shop.write(day, [
            {"event_id": f"{number}{item}", "event_time": at, "event_type": "purchase", "session_id": f"b{number}",
             "item_id": item, "item_title": title}
            for item, title in (("mug", "mug"), ("P", "POSTAGE"), ("tray", "tray"), ("pot", "pot"))
        ])  # fmt: skip
    run = shop.run("next_item", day_of(2), exclude={"titles": ["postage"]})
    result = build_examples(run)
    directory = run.stage("examples").directory
    assert result["excluded_items"] == {"titles: postage": 1}
    assert set(Catalogue.read(directory / "catalogue.parquet").items) == {"mug", "tray", "pot"}
    assert "P" not in pq.read_table(directory / "events.parquet")["item_id"].to_pylist()
    asked = read_holdout(directory / "holdout.parquet")
    assert {tuple(query.history_items): query.relevant for query in asked} == {
        ("mug",): ["tray"], ("tray", "mug"): ["pot"],
    }  # fmt: skip
