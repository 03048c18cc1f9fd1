"""A product list means to a refresh what it means to a night."""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reshelve.clickstream.database import connect, is_blank, known
from reshelve.clickstream.events import EVENT_SCHEMA
from reshelve.errors import DataError
from reshelve.examples.partitions import Split
from reshelve.examples.window import open_window
from reshelve.pipeline.products import _TRIMMED, _each_once

DAY = date(2011, 8, 1)
ROWS: dict[str, str | None] = {
    "a": "mug", " a": "padded id", "a\t": "id with a tab", "b": "ends in a tab\t", "c": "  padded title ", "d": "   ",
    "e": "no-break blanks\u00a0", "f": None, "g": "\t",
}  # fmt: skip


def test_ids_and_titles_are_those_that_a_night_reads(tmp_path: Path) -> None:
    products, events = tmp_path / "products.parquet", tmp_path / f"{DAY}.parquet"
    pq.write_table(pa.table({"item_id": list(ROWS), "title": list(ROWS.values())}), products)
    pq.write_table(EVENT_SCHEMA.empty_table(), events)
    split = Split((DAY,), (), (DAY,), begins=DAY, digests={}, excluded={})
    night = open_window([events], split, {"click": 1.0}, products, tmp_path / "spill")
    rows = ((place, item, title) for place, (item, title) in enumerate(ROWS.items(), 1))
    found = _each_once(rows, products, "row")
    assert found == dict(night.execute("SELECT item_id, title FROM products").fetchall())
    assert found[" a"] == "padded id" and found["b"] == "ends in a tab\t" and found["c"] == "padded title"


def test_every_letter_is_blank_and_trimmed_as_sql_says() -> None:
    letters = [chr(code) for code in range(1, sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    listed = pa.table({"letter": letters})
    with connect() as db:
        db.register("listed", listed)
        blank = {
            row
            for (row,) in db.execute(f"SELECT letter FROM listed WHERE {known('letter')} IS NULL").fetchall()
        }
        trimmed = {
            row for (row,) in db.execute("SELECT letter FROM listed WHERE trim(letter) = ''").fetchall()
        }
    assert blank == {letter for letter in letters if is_blank(letter)}
    assert trimmed == set(_TRIMMED)


def test_a_row_whose_id_is_blank_is_named() -> None:
    with pytest.raises(DataError, match="row 2 has no item_id"):
        _each_once(iter([(1, "a", "mug"), (2, "\u200b \t", "cup")]), Path("products.csv"), "row")
