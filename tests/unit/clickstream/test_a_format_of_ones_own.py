"""A format that the project does not know is one RawFormat: with it a shop's day lands, and its options are checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from reshelve.clickstream.database import connect, database, text
from reshelve.errors import ConfigurationError
from reshelve.landing.land import land
from reshelve.landing.look import look
from reshelve.landing.mapping import map_events
from reshelve.raw import formats
from reshelve.raw.formats import format_of, known_endings, register
from reshelve.raw.raw_format import RawFormat
from reshelve.raw.reader_options import ReaderOptions
from reshelve.raw.sources import load_source

_WIDTHS = {"seen": 20, "visit": 4, "sku": 4, "q": 10}


def _fixed_width(
    db: duckdb.DuckDBPyConnection, files: Sequence[Path], options: ReaderOptions, filename: str | None = None
) -> str:
    """Fields of known widths, by Python and Arrow; the rest of the package sees a table."""
    selects = []
    for number, path in enumerate(files):
        rows = []
        for line in path.read_text().splitlines():
            row, place = {}, 0
            for name, width in _WIDTHS.items():
                row[name], place = line[place : place + width].strip() or None, place + width
            rows.append(row)
        table = f"fixed_{number}_{path.stem}".replace("-", "_")
        db.register(table, pa.Table.from_pylist(rows, pa.schema([(name, pa.string()) for name in _WIDTHS])))
        also = f", {text(path)} AS {filename}" if filename else ""
        selects.append(f"SELECT *{also} FROM {table}")
    return " UNION ALL ".join(selects)


FIXED = RawFormat("fixed", "a file of fixed widths", (".fixed",), _fixed_width)


@pytest.fixture
def fixed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(formats, "_FORMATS", dict(formats._FORMATS))
    register(FIXED)
    yield


def _line(seen: str, visit: str, sku: str, q: str = "") -> str:
    return f"{seen:<20}{visit:<4}{sku:<4}{q:<10}\n"


def _as_fixed(mapping: Path) -> None:
    raw = mapping.parent.parent
    days = _line("2011-08-01 09:00:00", "v1", "11", "teapot") + _line("2011-08-03 10:00:00", "v2", "0012")
    (raw / "clicks.fixed").write_text(days)
    lines = [
        f"files: {raw}/clicks.fixed" if line.startswith("files:") else
        "format: fixed" if line.startswith("format:") else line
        for line in mapping.read_text().splitlines()
    ]  # fmt: skip
    mapping.write_text("\n".join(lines) + "\n")


def test_a_day_of_it_lands(fixed: None, raw_source: Callable[..., Path]) -> None:
    _as_fixed(raw_source("seen,visit,sku,q\n"))
    found = land("shop")
    assert (found["partitions"], found["rows"]) == (2, 2)


def test_its_values_are_text_letter_for_letter(
    fixed: None, raw_source: Callable[..., Path], tmp_path: Path
) -> None:
    _as_fixed(raw_source("seen,visit,sku,q\n"))
    with database(tmp_path / "events.duckdb") as db:
        map_events(db, load_source("shop"), tmp_path)
        assert db.execute("SELECT item_id, query FROM events ORDER BY row").fetchall() == [
            ("11", "teapot"),
            ("0012", None),
        ]


def test_it_has_no_options_and_that_is_said_with_the_line(
    fixed: None, raw_source: Callable[..., Path]
) -> None:
    mapping = raw_source("seen,visit,sku,q\n")
    _as_fixed(mapping)
    mapping.write_text(mapping.read_text() + "options: {delimiter: x}\n")
    with pytest.raises(ConfigurationError, match=r"options\.delimiter: no option of fixed"):
        load_source("shop")


def test_a_look_knows_it_by_its_ending(fixed: None, tmp_path: Path) -> None:
    (tmp_path / "clicks.fixed").write_text(_line("2011-08-01 09:00:00", "v1", "11", "teapot"))
    assert format_of(Path("CLICKS.FIXED")) is FIXED and ".fixed" in known_endings()
    seen = look(str(tmp_path / "clicks.fixed"))
    assert (seen.file_format, [one.name for one in seen.columns]) == ("fixed", list(_WIDTHS))


def test_a_format_that_is_not_there_is_refused_with_the_names(raw_source: Callable[..., Path]) -> None:
    _as_fixed(raw_source("seen,visit,sku,q\n"))
    with pytest.raises(ConfigurationError, match=r"format: .*expected one of parquet, csv, tsv, json"):
        load_source("shop")


def test_two_formats_of_one_ending_are_refused(fixed: None) -> None:
    with pytest.raises(ValueError, match="taken"):
        register(RawFormat("wide", "a file", (".fixed",), _fixed_width))


def test_a_tsv_splits_at_tabs_alone(tmp_path: Path) -> None:
    (tmp_path / "clicks.tsv").write_text("sku,x\tq\n1,2,3\tred, blue\n")
    told = formats.raw_format("tsv")
    with connect() as db:
        rows = db.execute(told.sql(db, [tmp_path / "clicks.tsv"], ReaderOptions(), None)).fetchall()
    assert rows == [("1,2,3", "red, blue")]


def test_a_column_that_the_mapping_does_not_name_is_null(
    raw_source: Callable[..., Path], tmp_path: Path
) -> None:
    mapping = raw_source("seen,visit,sku,q\n2011-08-01 09:00:00,v1,11,teapot\n")
    kept = [
        line
        for line in mapping.read_text().splitlines()
        if not line.strip().startswith(("segment:", "grade:"))
    ]
    assert len(kept) == len(mapping.read_text().splitlines()) - 2
    mapping.write_text("\n".join(kept) + "\n")
    with database(tmp_path / "events.duckdb") as db:
        map_events(db, load_source("shop"), tmp_path)
        assert db.execute("SELECT segment, grade, item_id FROM events").fetchall() == [(None, None, "11")]
