"""Raw files whose names are patterns, which hold far more than they weigh, or whose values nobody but the shop may read."""

from __future__ import annotations

import gzip
import json
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reshelve.clickstream.database import RawFileError, connect
from reshelve.clickstream.events import EVENT_SCHEMA
from reshelve.clickstream.faults import columns_told, reason
from reshelve.errors import ConfigurationError, DataError
from reshelve.landing.land import land
from reshelve.raw import local_files
from reshelve.raw.local_files import check_packed, plain_name
from reshelve.raw.raw_files import open_raw
from reshelve.raw.reader_options import ReaderOptions
from reshelve.settings import settings
from reshelve.store.objects import ObjectStore
from reshelve.validation.landed import UnreadableError, open_landed
from reshelve.validation.validate import validate_range

from .conftest import DAY, as_parquet, event

# --- names

PATTERNS = ("part-[0-9]", "part-*", "part-?", "part-{3,4}", "back\\slash-[3]", "dt=[3]/part-[0-9]")


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("ending", ["csv", "csv.gz", "jsonl", "parquet"])
def test_a_name_that_is_a_pattern_means_its_own_file(tmp_path: Path, name: str, ending: str) -> None:
    path, other = tmp_path / "raw" / f"{name}.{ending}", tmp_path / "raw" / f"part-3.{ending}"
    path.parent.mkdir(parents=True)
    for file, sku in ((path, "mine"), (other, "another")):
        _write(file, sku)
    with connect() as db:
        raw = open_raw(db, [path], _format(ending), ReaderOptions(), tmp_path / "scratch")
        assert db.execute(f"SELECT sku FROM ({raw.query})").fetchall() == [("mine",)]
        assert raw.first(str, "sku = 'mine'") == f"row 1 of {path}"
        assert ("dt" in raw.columns) == name.startswith("dt=")


def _format(ending: str) -> str:
    return {"jsonl": "json", "parquet": "parquet"}.get(ending, "csv")


def _write(path: Path, sku: str) -> None:
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"sku": [sku]}), path)
        return
    content = (json.dumps({"sku": sku}) if path.suffix == ".jsonl" else f"sku\n{sku}") + "\n"
    path.write_bytes(gzip.compress(content.encode()) if path.suffix == ".gz" else content.encode())


@given(
    name=st.text(min_size=1, max_size=400).filter(lambda name: not set("/\0") & set(name)),
    number=st.integers(0, 99),
)
def test_every_name_becomes_one_that_a_disk_takes_and_no_reader_expands(name: str, number: int) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:  # a lone surrogate is no key of an object
        return
    made = plain_name(name, number)
    assert len(made.encode()) <= 255 and made.strip(".") and not set("*?[]{}\\") & set(made)


@pytest.mark.parametrize(
    "name", ["part-[0-9].parquet", "part-*.parquet", "/".join(["x" * 150, "y" * 150 + ".parquet"])]
)
def test_the_name_of_an_object_blocks_no_day(
    store: ObjectStore, land_bytes: Callable[..., None], name: str
) -> None:
    first, second = ([event(row) for row in rows] for rows in (range(40), range(40, 100)))
    land_bytes(as_parquet(pa.Table.from_pylist(first, schema=EVENT_SCHEMA)), name)
    land_bytes(as_parquet(pa.Table.from_pylist(second, schema=EVENT_SCHEMA)), "part-3.parquet")
    judged = validate_range("retail", DAY, DAY)
    assert judged["partitions"] == 1
    verdict = store.get_json(f"validated/retail/dt={DAY}/verdict.json")
    assert verdict is not None and verdict["rows_in"] == 100 and verdict["verdict"] != "stop"


# --- sizes


@pytest.fixture
def tight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that a test can afford to break: a file may always hold 1 MB."""
    monkeypatch.setattr(local_files, "_SMALL", 1_000_000)


def _bomb(path: Path, megabytes: int) -> Path:
    """A gzip file of that many megabytes of one letter; it weighs a thousandth."""
    pack = zlib.compressobj(9, zlib.DEFLATED, 31)
    line = b"x" * 999_999 + b"\n"
    path.write_bytes(b"".join(pack.compress(line) for _ in range(megabytes)) + pack.flush())
    return path


def test_a_file_that_grows_too_much_is_named_with_the_limit(
    tight: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _bomb(tmp_path / "a.csv.gz", 20)
    with pytest.raises(
        RawFileError, match=r"a\.csv\.gz has [0-9,]+ bytes and holds more than .*RESHELVE_RAW_MAX_RATIO=200"
    ):
        check_packed([path])
    monkeypatch.setenv("RESHELVE_RAW_MAX_RATIO", "2000")
    monkeypatch.setenv("RESHELVE_RAW_MAX_GIGABYTES", "0.01")
    settings.cache_clear()
    with pytest.raises(RawFileError, match=r"a\.csv\.gz .*RESHELVE_RAW_MAX_GIGABYTES=0\.01"):
        check_packed([path])
    monkeypatch.setenv("RESHELVE_RAW_MAX_GIGABYTES", "1")
    settings.cache_clear()
    check_packed([path])


@pytest.mark.parametrize(
    "name", ["a.csv.gz", "a.CSV.GZ", "two members.csv.gz", "a broken member.csv.gz", "a.csv.zst"]
)
def test_no_packing_hides_what_a_file_holds(tight: None, tmp_path: Path, name: str) -> None:
    path = _bomb(tmp_path / "bomb.gz", 20).rename(tmp_path / name)
    if name.endswith("zst"):
        path.write_bytes(pa.compress(gzip.decompress(path.read_bytes()), "zstd", asbytes=True))
    if "member" in name:
        first = bytearray(gzip.compress(b"sku\ntea\n"))
        if "broken" in name:
            first[-8] ^= 1  # its checksum: DuckDB reads on
        path.write_bytes(bytes(first) + path.read_bytes())
    with (
        connect() as db,
        pytest.raises(RawFileError, match=f"{name} (has .* and holds more than|is damaged)"),
    ):
        open_raw(db, [path], "csv", ReaderOptions(), tmp_path / "scratch")


def test_a_packed_file_is_unpacked_once_where_the_disk_has_room(
    tight: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "raw" / "dt=2011-08-01" / "a.csv.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(
        gzip.compress("".join(["sku\n", *(f"item {number}\n" for number in range(200_000))]).encode())
    )
    for free, copied in ((1 << 40, True), (1 << 20, False)):
        monkeypatch.setattr(
            shutil, "disk_usage", lambda _, free=free: shutil._ntuple_diskusage(free, 0, free)
        )
        with connect() as db:
            raw = open_raw(db, [path], "csv", ReaderOptions(), tmp_path / f"scratch-{copied}")
            assert (raw.files != (path,)) is copied
            assert db.execute(f"SELECT count(*), min(dt) FROM ({raw.query})").fetchone() == (
                200_000,
                "2011-08-01",
            )
            assert raw.first(str, "sku = 'item 4'") == f"row 5 of {path}"


def test_a_column_of_one_value_is_as_large_as_its_table(tight: None, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"sku": pa.array(["tea"] * 5_000_000).dictionary_encode()}), path)
    with connect() as db:
        with pytest.raises(RawFileError, match=r"a\.parquet .*RESHELVE_RAW_MAX_RATIO"):
            open_raw(db, [path], "parquet", ReaderOptions(), tmp_path / "scratch")
        with pytest.raises(UnreadableError, match=r"^a\.parquet .*RESHELVE_RAW_MAX_RATIO"):
            open_landed(db, [path], tmp_path)


def test_a_landing_ends_with_65_and_says_which_file(
    tight: None, raw_source: Callable[..., Path], tmp_path: Path
) -> None:
    mapping = raw_source("seen,visit,sku,q\n")
    mapping.write_text(mapping.read_text().replace("raw*.csv", "raw*.csv*"))
    _bomb(tmp_path / "raw-2.csv.gz", 20)
    with pytest.raises(
        DataError, match=r"shop\.yaml:2: files: .*raw-2\.csv\.gz has .* and holds more than"
    ) as refused:
        land("shop")
    assert refused.value.exit_code == 65


# --- values

SECRET = "Ann O'Nymous +49 170 1234567"
ATTEMPTS = (
    "CAST({} AS DOUBLE)", "CAST({} AS BIGINT)", "CAST({} AS DECIMAL(9, 2))", "CAST({} AS BOOLEAN)", "CAST({} AS DATE)", "CAST({} AS TIMESTAMP)",
    "CAST({} AS TIMESTAMPTZ)", "CAST({} AS TIME)", "CAST({} AS INTERVAL)", "CAST({} AS UUID)", "CAST({} AS JSON)", "CAST({} AS INTEGER[])",
    "CAST({} AS STRUCT(a INTEGER))", "CAST({} AS ENUM('a'))", "CAST({} AS BIT)", "CAST({} AS UNION(a INTEGER))", "strptime({}, '%Y')",
    "error({})", "json_extract({}, '$.a')", "json_extract('{{}}', concat('$[', {}))", "from_base64({})", "unhex({})", "timezone({}, TIMESTAMP '2026-01-01')",
    "date_part({}, DATE '2026-01-01')", "date_trunc({}, DATE '2026-01-01')", "regexp_matches('a', concat({}, '('))", "map([{0}, {0}], [1, 2])",
    "format(concat({}, '{{'), 1)", "json_transform({}, '{{\"a\": \"INT\"}}')",
    "CAST(length({}) * 41234567890 AS INTEGER)", "CAST(length({}) * 1e30 AS BIGINT)", "9223372036854775807 + length({})",
    "list_resize([1], length({}) * 999999999999)",
)  # fmt: skip


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_no_error_of_duckdb_repeats_a_value(attempt: str) -> None:
    with connect() as db:
        db.execute("CREATE TABLE raw AS SELECT ? AS visit", [SECRET])
        with pytest.raises(duckdb.Error) as caught:
            db.execute(f"SELECT {attempt.format('visit')} FROM raw").fetchall()
    said = reason(caught.value, bound=True)
    assert said and not _repeats(said)


def _repeats(said: str) -> bool:
    return any(part in said for part in ("Ann O", "Nymous", "+49 170", "1234567", "41234567890"))


@given(value=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=3, max_size=60))
def test_no_value_talks_itself_into_an_error(value: str) -> None:
    secret = f"{SECRET}{value}{SECRET}"
    with connect() as db:
        db.execute("CREATE TABLE raw AS SELECT ? AS visit", [secret])
        for attempt in (
            "CAST(visit AS DOUBLE)",
            "error(visit)",
            "CAST(visit AS TIMESTAMP)",
            "strptime(visit, '%Y')",
        ):
            with pytest.raises(duckdb.Error) as caught:
                db.execute(f"SELECT {attempt} FROM raw").fetchall()
            assert not _repeats(reason(caught.value, bound=True))


HOSTILE = [
    f"a' to DOUBLE {SECRET}",
    f"x\n\nLINE 1: {SECRET}",
    f"CSV Error on Line: 1\nExpected Number of Columns: 1 Found: 2 {SECRET}\n  file = {SECRET}",
    f"' to {SECRET}",
    f"Overflow in addition of INT64 {SECRET}",
    f"Map keys must be unique {SECRET}",
    f'Failed to read file "{SECRET}": ',
    f'Conversion Error: Malformed JSON in file "{SECRET}", at byte 1 in line 1: x',
]


@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
def test_a_value_that_looks_like_an_error_is_not_told(value: str) -> None:
    with connect() as db:
        db.execute("CREATE TABLE raw AS SELECT ? AS visit", [value])
        for attempt in (
            "CAST(visit AS DOUBLE)",
            "CAST(visit AS JSON)",
            "strptime(visit, '%Y')",
            "error(visit)",
        ):
            with pytest.raises(duckdb.Error) as caught:
                db.execute(f"SELECT {attempt} FROM raw").fetchall()
            assert not _repeats(reason(caught.value, bound=True))


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        pytest.param({"price": "CAST(visit AS DOUBLE)"}, r"columns\.price: .*\(row 2 of .*raw\.csv\)", id="a cast"),
        pytest.param({"price": "visit"}, r"columns\.price: a text cannot be converted to DOUBLE \(row 2 of .*raw\.csv\)", id="our cast"),
        pytest.param({"query": "json_extract_string('{}', concat('$[', visit))"}, r"columns\.query: ", id="a path"),
        pytest.param({"query": "CAST(strptime(visit, '%Y') AS VARCHAR)"}, r"columns\.query: a text does not have the format", id="a format"),
        pytest.param({"quantity": "length(visit) * 9223372036854775807"}, r"columns\.quantity: ", id="a sum"),
    ],
)  # fmt: skip
def test_a_landing_names_the_row_and_not_the_value(
    raw_source: Callable[..., Path], changes: dict[str, Any], place: str
) -> None:
    raw_source(
        f'seen,visit,sku,q\n2011-08-01 09:00:00,,11,tea\n2011-08-01 09:00:00,"{SECRET}",11,tea\n', **changes
    )
    with pytest.raises(ConfigurationError, match=place) as refused:
        land("shop")
    assert not _repeats(str(refused.value))


def test_a_line_without_a_header_is_no_list_of_columns(raw_source: Callable[..., Path]) -> None:
    raw_source(f"2011-08-01 09:00:00,{SECRET},11,tea\n")
    with pytest.raises(
        ConfigurationError, match=r"is the first line a header \(options\.header\)"
    ) as refused:
        land("shop")
    assert not _repeats(str(refused.value))
    assert (
        columns_told(["seen", "Created at", "Menge (Stück)", "a/b", "q1"])
        == "seen, Created at, Menge (Stück), a/b, q1"
    )
