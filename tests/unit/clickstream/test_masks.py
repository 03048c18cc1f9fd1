"""What is masked, what is left alone, and that every way in does the same."""

from __future__ import annotations

import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reshelve.clickstream.database import connect
from reshelve.clickstream.events import EVENT_SCHEMA
from reshelve.clickstream.masks import mask, mask_array, mask_events, mask_file
from reshelve.settings import settings

MASKED = [
    ("mail ann.b@shop.example now", "mail <e-mail> now"),
    ("ann@münchen.example.de", "<e-mail>"),
    ("4111 1111 1111 1111", "<card>"),
    ("4111-1111-1111-1111", "<card>"),
    ("4111–1111–1111–1111", "<card>"),
    ("4111111111111111", "<card>"),
    ("378282246310005 gift card", "<card> gift card"),
    ("12 4111 1111 1111 1111 12/26", "12 <card> 12/26"),
    ("4111 1111 1111 1112", "<card>"),  # mistyped, and written as one
    ("DE89 3704 0044 0532 0130 00 gift", "<iban> gift"),
    ("de89370400440532013000", "<iban>"),
    ("GB29 NWBK 6016 1331 9268 19", "<iban>"),
    ("MT84MALT011000012345MTLCAST001S", "<iban>"),
    ("call +44 20 7946 0958", "call <phone>"),
    ("0049 171 1234567", "<phone>"),
    ("555-867-5309", "<phone>"),
    ("(020) 7946 0958", "<phone>"),
    ("tel. 030 1234567", "tel. <phone>"),
    ("Phone: 01632 960 123", "Phone: <phone>"),
    ("电话021-54143212", "电话<phone>"),
    ("0171 1234567", "<phone>"),
    ("020 7946 0958", "<phone>"),
    ("0755-66607001", "<phone>"),
    ("07911 123456", "<phone>"),
    ("06 12 34 56 78", "<phone>"),
    ("044 123 45 67", "<phone>"),
    ("01711234567", "<phone>"),
    ("13910668984", "<phone>"),
    ("０６ １２ ３４ ５６ ７８", "<phone>"),
]
LEFT = [
    "9755322", "012345678905", "4006381333931", "0306406152", "978-3-16-148410-0", "4111111111111112",
    "size 10 - 12", "nikon d3100 18-55", "2011-08-09 10:11:12", "LaborDay_VideoGames_20110902",
    "DE89370400440532013001", "Siemens SK75M521EU Stainless Steel", "omega 123.10.35.60.02.001 123.10.35.60.02.001",
    "garmin 010-00864-01", "chopard 388549-3002 384211-5004", "american standard 047107-0070A", "ipad@home", "",
    "oem 030 115 561", "036 109 119", "030 1234567", "bosch 0601 019 500", "bosch 0 601 019 500", "makita 0123 456789",
    "iphone 0601 019 500", "0940-015-110", "003/062/061", "07315001126", "ryobi 140295003 12 volt", "05495 05498",
]  # fmt: skip


@pytest.mark.parametrize(("typed", "kept"), MASKED)
def test_what_is_a_persons_is_masked(typed: str, kept: str) -> None:
    assert mask(typed) == kept


@pytest.mark.parametrize("typed", LEFT)
def test_what_is_a_products_is_left(typed: str) -> None:
    assert mask(typed) == typed


@given(
    st.lists(st.sampled_from([typed for typed, _ in MASKED] + LEFT + ["+", "0", " ", "@", "x"]), max_size=6)
)
def test_every_way_in_masks_alike_and_only_once(parts: list[str]) -> None:
    typed = " ".join(parts)
    masked = mask(typed)
    assert mask(masked) == masked
    assert mask_array(pa.array([None, typed, "red mug"])).to_pylist() == [None, masked, "red mug"]
    with connect() as db:
        db.execute("CREATE TABLE events (query VARCHAR)")
        db.execute("INSERT INTO events VALUES (NULL), (?), ('red mug')", [typed])
        changed = mask_events(db)
        assert db.execute("SELECT query FROM events").fetchall() == [(None,), (masked,), ("red mug",)]
        assert changed == (masked != typed)


def test_a_file_is_masked_in_place_and_one_with_nothing_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "good.parquet"
    rows = [
        {"query": "red mug", "item_id": "ann@shop.example"},
        {"query": "to ann@shop.example", "item_id": "2"},
    ]
    pq.write_table(pa.Table.from_pylist(rows, EVENT_SCHEMA), path)
    assert mask_file(path)
    assert pq.read_table(path).schema.equals(EVENT_SCHEMA)
    assert [(row["query"], row["item_id"]) for row in pq.read_table(path).to_pylist()] == [
        ("red mug", "ann@shop.example"), ("to <e-mail>", "2"),
    ]  # fmt: skip
    before = path.stat().st_ino
    assert not mask_file(path) and path.stat().st_ino == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["good.parquet"]


@pytest.mark.parametrize("typed", ["a" * 50_000 + "@", "@" * 50_000, "a@" + "b." * 25_000, "1 " * 25_000, "DE89 " * 10_000, "+1(" * 20_000])  # fmt: skip
def test_no_text_takes_long(typed: str) -> None:
    began = time.monotonic()
    mask(typed)
    assert time.monotonic() - began < 20  # a square of its length would be minutes


@pytest.mark.parametrize(
    ("file", "column", "most"),
    [
        ("bestbuy_xbox_2011/clicks.parquet", "query", 0.0),
        ("home_depot_2016/pairs.parquet", "search_term", 0.0),
        ("catalogues/mixed_titles.parquet", "title", 6e-5),  # article numbers of 280,000 products
    ],
)
def test_real_queries_and_article_numbers_stay(file: str, column: str, most: float) -> None:
    path = settings().data / file
    if not path.is_file():
        pytest.skip(f"{path} is not there (RESHELVE_DATA)")
    texts = pq.read_table(path, columns=[column])[column].combine_chunks()
    changed = sum(
        new != old for new, old in zip(mask_array(texts).to_pylist(), texts.to_pylist(), strict=True)
    )
    assert changed <= most * len(texts)
