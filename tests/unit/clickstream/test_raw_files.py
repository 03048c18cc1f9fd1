"""Raw data keeps its meaning: what is written comes out letter for letter, and what cannot be read is named."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from reshelve.clickstream.database import connect
from reshelve.clickstream.events import EVENT_SCHEMA
from reshelve.errors import ConfigurationError, DataError
from reshelve.landing.mapping import map_catalogue, map_events
from reshelve.raw.sources import load_source
from reshelve.settings import settings as project_settings
from reshelve.validation.landed import open_landed

Content = str | bytes
HEAD = "seen,visit,sku,q\n"
LINE = "2011-08-01 09:00:00,v1,11,teapot\n"


class Mapped:
    """A mapping file over raw files of a directory, and what becomes of them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.mapping = directory / "clickstreams" / "shop.yaml"
        self.rejected: list[str] = []
        self.mapping.parent.mkdir(exist_ok=True)

    def write(self, files: Mapping[str, Content], top: str = "", **changes: str) -> None:
        """Raw files (all of the first one's format) and their mapping; `top` are further lines of it."""
        for name, content in files.items():
            (self.directory / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        ending = next(iter(files)).partition(".")[2]
        keys = dict.fromkeys(EVENT_SCHEMA.names, "NULL") | {
            "event_id": "md5(CAST(source AS VARCHAR))",
            "event_time": "CAST(seen AS TIMESTAMP)",
            "event_type": "'click'",
            "session_id": "visit",
            "query": "q",
            "item_id": "sku",
        } | changes  # fmt: skip
        file_format = {"csv": "csv", "parquet": "parquet"}.get(ending.removesuffix(".gz"), "json")
        lines = [
            "name: shop",
            f"files: {self.directory}/*.{ending}",
            f"format: {file_format}",
            *filter(None, [top]),
            "event_date: CAST(seen AS DATE)",
            "columns:",
            *(f"  {key}: {json.dumps(value)}" for key, value in keys.items()),
        ]
        self.mapping.write_text("\n".join(lines) + "\n")

    def rows(self, *columns: str) -> list[tuple[Any, ...]]:
        """Those columns of the events, in the order of the files."""
        with connect() as db, tempfile.TemporaryDirectory() as scratch:
            self.rejected = map_events(db, load_source("shop"), Path(scratch))
            return db.execute(f"SELECT {', '.join(columns)} FROM events ORDER BY row").fetchall()


@pytest.fixture
def mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mapped]:
    monkeypatch.setenv("RESHELVE_CLICKSTREAMS_DIR", str(tmp_path / "clickstreams"))
    project_settings.cache_clear()
    yield Mapped(tmp_path)
    project_settings.cache_clear()


def jsonl(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps({"seen": "2011-08-01 09:00:00", **row}) + "\n" for row in rows)


# --- letter for letter

NUMBERS = st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)
TEXTS = st.one_of(
    NUMBERS,
    st.sampled_from(["00412", "0412", "412", "12E4", "1.10", "true", "NULL", "#1", "'x'", "2011-08-01", "nan"]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=8),
)  # fmt: skip


def as_known(value: str) -> str | None:
    """What comes out: the text itself, or nothing where nothing can be seen."""
    return None if all(one.isspace() or one in "\u200b\u2060\ufeff" for one in value) else value


def as_csv(rows: list[list[str]]) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(rows)
    return out.getvalue().encode()


@pytest.fixture(scope="module")
def anywhere() -> Iterator[Callable[[Path], None]]:
    with pytest.MonkeyPatch.context() as patch:

        def use(directory: Path) -> None:
            patch.setenv("RESHELVE_CLICKSTREAMS_DIR", str(directory / "clickstreams"))
            project_settings.cache_clear()

        yield use
    project_settings.cache_clear()


@settings(deadline=None, max_examples=10, derandomize=True)
@given(rows=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=25))
@example(rows=[("412", "1.1"), ("0412", "1.10"), ("00412", "12E4")])
def test_every_text_of_a_csv_comes_out_as_written(
    anywhere: Callable[[Path], None], rows: list[tuple[str, str]]
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        anywhere(Path(directory))
        shop = Mapped(Path(directory))
        shop.write({"raw.csv": as_csv([["seen", "visit", "sku", "q"], *(["2011-08-01", *row, "q"] for row in rows)])})  # fmt: skip
        assert shop.rows("session_id", "item_id") == [tuple(map(as_known, row)) for row in rows]


@settings(deadline=None, max_examples=10, derandomize=True)
@given(rows=st.lists(st.tuples(TEXTS, NUMBERS), min_size=1, max_size=25))
@example(rows=[("0412", "12345678901234567890123"), ("a 1.10", "1.10"), ('"\\', "12E4"), ("412", "-0")])
def test_every_text_and_every_number_of_json_comes_out_as_written(
    anywhere: Callable[[Path], None], rows: list[tuple[str, str]]
) -> None:
    lines = [
        f'{{"seen": "2011-08-01", "visit": {json.dumps(visit)}, "deep": [{{"sku": {number}}}], "q": {number}}}\n'
        for visit, number in rows
    ]
    with tempfile.TemporaryDirectory() as directory:
        anywhere(Path(directory))
        shop = Mapped(Path(directory))
        shop.write({"raw.jsonl": "".join(lines)}, item_id="deep[1].sku")
        found = shop.rows("session_id", "item_id", "query")
    assert found == [(as_known(visit), number, number) for visit, number in rows]


@settings(deadline=None, max_examples=8, derandomize=True)
@given(
    items=st.lists(TEXTS.filter(as_known), min_size=1, max_size=25),
    ending=st.sampled_from(["csv", "jsonl", "csv.gz", "jsonl.gz"]),
)
@example(items=["412", "0412", "00412"], ending="csv")
def test_ids_of_own_partitions_and_of_catalogues_come_out_as_written(
    anywhere: Callable[[Path], None], items: list[str], ending: str
) -> None:
    rows = [dict.fromkeys(EVENT_SCHEMA.names, "") | {"item_id": item} for item in items]
    if ending.startswith("csv"):
        content = as_csv([EVENT_SCHEMA.names, *(list(row.values()) for row in rows)])
    else:
        content = "".join(json.dumps({k: v or None for k, v in row.items()}) + "\n" for row in rows).encode()
    with tempfile.TemporaryDirectory() as made, connect() as db:
        directory = Path(made)
        path = directory / f"part.{ending}"
        path.write_bytes(gzip.compress(content) if ending.endswith("gz") else content)
        (directory / "scratch").mkdir()
        landed = open_landed(db, [path], directory / "scratch")
        assert pq.read_table(landed.files[0])["item_id"].to_pylist() == items
        anywhere(directory)
        shop = Mapped(directory)
        shop.write({f"raw.{ending}": path.read_bytes()})
        kind = "csv" if ending.startswith("csv") else "json"
        listed = f"catalogue: {{files: {path}, format: {kind}, item_id: item_id, title: item_title}}\n"
        shop.mapping.write_text(shop.mapping.read_text() + listed)
        map_catalogue(db, load_source("shop"), directory)
        assert db.execute("SELECT item_id FROM products ORDER BY row").fetchall() == [(i,) for i in items]


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_many_rows_before_change_nothing(mapped: Mapped, ending: str) -> None:
    skus = [*map(str, range(1000, 22_000)), "00412", "0412", "412"]
    if ending == "csv":
        content = HEAD + "".join(f"2011-08-01,v,{sku},\n" for sku in skus)
    else:
        content = "".join(f'{{"seen": "2011-08-01", "visit": "v", "sku": "{sku}"}}\n' for sku in skus)
    mapped.write({f"raw.{ending}": content}, query="NULL")
    assert [sku for (sku,) in mapped.rows("item_id")] == skus


def test_lists_and_objects_of_json_stay_lists_and_objects(mapped: Mapped) -> None:
    items = [{"sku": 1.10, "price": 2.5, "place": 1}, {"sku": "00412", "new": True}]
    content = jsonl({"visit": "v", "items": items}).replace("1.1,", "1.10,")
    mapped.write(
        {"raw.jsonl": content},
        "rows: SELECT *, unnest(items) AS item FROM raw",
        item_id="item.sku", query="NULL", price="item.price * 2", position="item.place", category="item.new",
    )  # fmt: skip
    with pytest.raises(ConfigurationError, match=r"columns\.price") as caught:
        mapped.rows("item_id")
    assert "options.types" in caught.value.detail
    mapped.write(
        {"raw.jsonl": content},
        "rows: SELECT *, unnest(items) AS item FROM raw",
        item_id="item.sku", query="NULL", price="CAST(item.price AS DOUBLE) * 2", position="item.place",
        category="item.new",
    )  # fmt: skip
    assert mapped.rows("item_id", "price", "position", "category") == [
        ("1.10", 5.0, 1, None), ("00412", None, None, "true")
    ]  # fmt: skip


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
@pytest.mark.parametrize(
    ("sql", "top"),
    [
        ("seen", ""),
        ("CAST(seen AS TIMESTAMP)", ""),
        ("seen::TIMESTAMP", ""),
        ("TRY_CAST(seen AS TIMESTAMP)", ""),
        ("coalesce(nullif(q, ''), seen)::TIMESTAMP", ""),
        ("CAST(CAST(trim(seen) AS TIMESTAMP) AS TIMESTAMP)", ""),
        ("CASE WHEN seen::DATE > DATE '2000-01-01' THEN (seen || '')::TIMESTAMP END", ""),
        ("seen", "options: {types: {seen: timestamp}}"),
    ],
)
def test_a_time_with_an_offset_becomes_utc(mapped: Mapped, ending: str, sql: str, top: str) -> None:
    seen = ["2011-08-01T01:30:00+02:00", "2011-08-01T01:30:00Z", "2011-08-01 01:30:00"]
    content = {
        "csv": HEAD + "".join(f"{when},v,s,\n" for when in seen),
        "jsonl": "".join(json.dumps({"seen": when, "visit": "v", "sku": "s", "q": ""}) + "\n" for when in seen),
    }  # fmt: skip
    mapped.write({f"raw.{ending}": content[ending]}, top, event_time=sql)
    assert mapped.rows("day", "event_time") == [
        (date(2011, 7, 31), datetime(2011, 7, 31, 23, 30)),
        *[(date(2011, 8, 1), datetime(2011, 8, 1, 1, 30))] * 2,
    ]


# --- how files are written


@pytest.mark.parametrize(
    ("files", "top", "changes", "expected"),
    [
        pytest.param({"raw.csv": LINE}, "options: {header: false, names: [seen, visit, sku, q]}", {}, [("v1", "11", "teapot")], id="no header"),
        pytest.param({"raw.csv": LINE}, "options: {header: false}", {"session_id": "column1", "item_id": "column2", "query": "column3", "event_time": "TIMESTAMP '2011-08-01'", "event_date": "x"}, [("v1", "11", "teapot")], id="no header, no names"),
        pytest.param({"raw.csv": (HEAD + LINE).replace(",", ";")}, "", {}, [("v1", "11", "teapot")], id="semicolons by themselves"),
        pytest.param({"raw.csv": (HEAD + LINE).replace(",", "\t")}, "", {}, [("v1", "11", "teapot")], id="tabs by themselves"),
        pytest.param({"raw.csv": (HEAD + LINE).replace(",", "~")}, 'options: {delimiter: "~"}', {}, [("v1", "11", "teapot")], id="another delimiter"),
        pytest.param({"raw.csv": HEAD + LINE.replace("teapot", "'tea, pot'")}, """options: {quote: "'"}""", {}, [("v1", "11", "tea, pot")], id="another quote"),
        pytest.param({"raw.csv": HEAD + LINE.replace("teapot", '"the \\"pot\\""')}, 'options: {escape: "\\\\"}', {}, [("v1", "11", 'the "pot"')], id="another escape"),
        pytest.param({"raw.csv": HEAD + LINE.replace("teapot", '7" pot')}, 'options: {quote: ""}', {}, [("v1", "11", '7" pot')], id="no quotes"),
        pytest.param({"raw.csv": "# of the shop\n" + HEAD + LINE}, "options: {skip: 1}", {}, [("v1", "11", "teapot")], id="lines above the header"),
        pytest.param({"raw.csv": HEAD + "#" + LINE + LINE}, 'options: {comment: "#"}', {}, [("v1", "11", "teapot")], id="comments"),
        pytest.param({"raw.csv": "# made by x\n" + HEAD + LINE}, 'options: {comment: "#"}', {}, [("v1", "11", "teapot")], id="a comment above the header"),
        pytest.param({"raw.csv": "\n# a,b,c,d\n\n#\n" + HEAD + LINE}, 'options: {comment: "#"}', {}, [("v1", "11", "teapot")], id="comments and blank lines above the header"),
        pytest.param({"raw.csv": HEAD + LINE.replace("v1", "#1")}, "", {}, [("#1", "11", "teapot")], id="no comments by themselves"),
        pytest.param({"raw.csv": HEAD + LINE.replace("teapot", "(none)")}, 'options: {null_strings: ["(none)"]}', {}, [("v1", "11", None)], id="another word for NULL"),
        pytest.param({"raw.csv": (HEAD + LINE).replace("teapot", "thé €").encode("cp1252")}, "options: {encoding: cp1252}", {}, [("v1", "11", "thé €")], id="Windows-1252"),
        pytest.param({"raw.csv": gzip.compress((HEAD + LINE).encode("utf-16"))}, "options: {encoding: utf-16}", {}, [("v1", "11", "teapot")], id="UTF-16, compressed"),
        pytest.param({"raw.csv": HEAD + LINE + LINE.replace("teapot\n", "tea,7\n")}, "options: {names: [seen, visit, sku, q, n], null_padding: true}", {"query": "n"}, [("v1", "11", None), ("v1", "11", "7")], id="a field gained half-way"),
        pytest.param({"raw.csv": (HEAD + LINE).replace("\n", "\r\n", 1)}, "options: {strict: false}", {}, [("v1", "11", "teapot")], id="mixed line ends"),
        pytest.param({"raw-1.csv": "seen,visit,sku\n2011-08-01,v0,00412\n", "raw-2.csv": "q,sku,visit,seen\n" + "tea,x9,v1,2011-08-02\n"}, "", {}, [("v0", "00412", None), ("v1", "x9", "tea")], id="columns that come and go"),
        pytest.param({"raw.csv": "seen,visit,sku\n2011-08-01,v0,1\n"}, "options: {types: {q: VARCHAR}}", {}, [("v0", "1", None)], id="a column that no file has yet"),
        pytest.param({"raw.csv": HEAD + LINE}, "options: {types: {sku: INTEGER}}", {"item_id": "sku + 1"}, [("v1", "12", "teapot")], id="arithmetic by its type"),
        pytest.param({"raw.jsonl": jsonl({"visit": "v1", "sku": "s", "q": "thé"}).encode().replace(b"\\u00e9", b"\xe9")}, "options: {encoding: latin-1}", {}, [("v1", "s", "thé")], id="JSON in Latin-1"),
        pytest.param({"raw.jsonl": jsonl({"visit": "v1", "sku": "s"})}, "options: {types: {q: VARCHAR}}", {}, [("v1", "s", None)], id="a key that no object has"),
        pytest.param({"raw.jsonl": jsonl({"visit": "v1", "sku": "s", "q": {"a": "1", "b": 2}})}, "options: {types: {q: 'STRUCT(a INTEGER, c VARCHAR)'}}", {"query": "q.a + 1"}, [("v1", "s", "2")], id="an object by its type"),
        pytest.param({"raw.csv": "\n" + HEAD + LINE}, "", {}, [("v1", "11", "teapot")], id="blank lines above the header"),
        pytest.param({"raw.json": '[{"seen": "2011-08-01",\n "visit": "v1", "sku": 1.0, "q": null}]'}, "", {}, [("v1", "1.0", None)], id="a list of objects"),
        pytest.param({"raw.jsonl": jsonl({"visit": "v1", "sku": "s", "SKU": "S", "q": "x"})}, "", {"query": "SKU_1"}, [("v1", "s", "S")], id="keys that differ in case alone"),
    ],
)  # fmt: skip
def test_files_are_read_as_their_options_say(
    mapped: Mapped, files: dict[str, Content], top: str, changes: dict[str, str], expected: list[tuple[Any, ...]]
) -> None:  # fmt: skip
    if isinstance(files.get("raw.csv"), bytes) and files["raw.csv"][:2] == b"\x1f\x8b":
        files = {"raw.csv.gz": files["raw.csv"]}
    mapped.write(files, top, **{key: value for key, value in changes.items() if key != "event_date"})
    if "event_date" in changes:
        text = mapped.mapping.read_text()
        mapped.mapping.write_text(text.replace("CAST(seen AS DATE)", "DATE '2011-08-01'"))
    assert mapped.rows("session_id", "item_id", "query") == expected
    assert mapped.rejected == []


@pytest.mark.parametrize("options", ["", "options: {encoding: latin-1}"], ids=["as it is", "written anew"])
@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_what_folders_say_is_text_too(mapped: Mapped, ending: str, options: str) -> None:
    content = {"csv": "seen,visit,q\n2011-08-01,v,\n", "jsonl": jsonl({"visit": "v", "q": None})}
    mapped.write({f"raw.{ending}": ""}, options, item_id="store", event_time="CAST(dt AS TIMESTAMP)")
    folder = mapped.directory / "dt=2011-08-01" / "store=007"
    folder.mkdir(parents=True)
    (folder / f"raw.{ending}").write_text(content[ending])
    text = mapped.mapping.read_text().replace(f"/*.{ending}", f"/dt=*/*/*.{ending}")
    mapped.mapping.write_text(text)
    assert mapped.rows("item_id", "event_time") == [("007", datetime(2011, 8, 1))]


def test_a_key_that_comes_late_is_there(mapped: Mapped) -> None:
    early = "".join(f'{{"seen": "2011-08-01", "visit": "v", "sku": "{n}"}}\n' for n in range(21_000))
    content = early + jsonl({"visit": "v", "sku": "last", "q": "late"})
    mapped.write({"raw.jsonl": content})
    assert mapped.rows("item_id", "query")[-1] == ("last", "late")
    mapped.write({"raw.jsonl": content}, "options: {sample_size: 10}")
    with pytest.raises(ConfigurationError, match=r"columns\.query: .*q"):
        mapped.rows("item_id")


@pytest.mark.parametrize("options", ["", "options: {types: {sku: BIGINT}}"], ids=["as it is", "by its type"])
def test_parquet_files_of_other_columns_and_types_are_read_together(mapped: Mapped, options: str) -> None:
    def written(**columns: list[Any]) -> bytes:
        out = io.BytesIO()
        pq.write_table(pa.table({"seen": ["2011-08-01"], "visit": ["v"], **columns}), out)
        return out.getvalue()

    mapped.write(
        {"raw-1.parquet": written(sku=[412]), "raw-2.parquet": written(sku=[7.0], q=["tea"])},
        options,
        item_id="CAST(sku AS VARCHAR)",
    )
    with capture_logs() as said:
        found = mapped.rows("item_id", "query")
    assert found == [("412", None), ("7", "tea")] and not said


@pytest.mark.parametrize("first", [7.5, float("nan"), 2.0**60], ids=str)
def test_a_float_that_is_no_integer_makes_floats_of_integers_and_says_so(
    mapped: Mapped, first: float
) -> None:
    def written(sku: float) -> bytes:
        out = io.BytesIO()
        pq.write_table(pa.table({"seen": ["2011-08-01"], "visit": ["v"], "sku": [sku]}), out)
        return out.getvalue()

    files = {"raw-1.parquet": written(first), "raw-2.parquet": written(412)}
    mapped.write(files, item_id="CAST(sku AS VARCHAR)", query="NULL")
    with capture_logs() as said:
        found = mapped.rows("item_id")
    assert found[1] == ("412.0",)
    assert [line["event"].startswith("column sku is DOUBLE in raw-1") for line in said] == [True]


@pytest.mark.parametrize(
    ("ending", "options", "line", "problem"),
    [
        pytest.param("csv", "{sample_size: 5}", 4, "options.sample_size: no option of csv", id="of another format"),
        pytest.param("jsonl", "\n  header: false", 5, "options.header: no option of json", id="no header in JSON"),
        pytest.param("parquet", "\n  encoding: utf-8\n", 5, "options.encoding: no option of parquet", id="not an encoding"),
        pytest.param("csv", "\n  encoding: klingon", 5, "options.encoding: .*not an encoding", id="no encoding of this world"),
        pytest.param("csv", "\n  types: {sku: NUMMER}", 5, "options.types: .*'NUMMER' is not a DuckDB type", id="no type"),
        pytest.param("csv", "\n  delimeter: x", 5, r"options.delimeter: .*expected one of: comment, delimiter", id="misspelt"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_are_refused_when_the_file_is_read(
    mapped: Mapped, ending: str, options: str, line: int, problem: str
) -> None:
    mapped.write({f"raw.{ending}": b""}, f"options: {options}")
    with pytest.raises(ConfigurationError, match=rf"shop\.yaml:{line}: {problem}"):
        load_source("shop")


def test_options_of_the_catalogue_are_its_own(mapped: Mapped) -> None:
    mapped.write({"raw.csv": HEAD + LINE})
    listed = mapped.directory / "products.txt"
    listed.write_bytes("00412;thé\n".encode("cp1252"))
    lines = [
        "catalogue:", f"  files: {listed}", "  format: csv", "  item_id: sku", "  title: title",
        "  options:", "    {header: false, names: [sku, title], encoding: cp1252}",
    ]  # fmt: skip
    mapped.mapping.write_text(mapped.mapping.read_text() + "\n".join(lines) + "\n")
    with connect() as db:
        map_catalogue(db, load_source("shop"), mapped.directory)
        assert db.execute("SELECT item_id, title FROM products").fetchall() == [("00412", "thé")]


# --- what cannot be read

OBJECT = jsonl({"visit": "v1", "sku": "11", "q": "teapot"})


@pytest.mark.parametrize(
    ("files", "top", "problem"),
    [
        pytest.param({"raw.csv": HEAD + LINE + "2011-08-01,v\n"}, "", r"raw\.csv: line 3: Expected Number of Columns: 4 Found: 2", id="too few fields"),
        pytest.param({"raw.csv": HEAD + LINE + LINE.replace("\n", ",x\n")}, "", r"raw\.csv: line 3: Expected Number of Columns: 4 Found: 5", id="too many fields"),
        pytest.param({"raw.csv": HEAD + LINE.replace("teapot", '"tea') + LINE}, "", r"raw\.csv: line 2: Value with unterminated quote", id="an open quote"),
        pytest.param({"raw.csv": HEAD.encode() + LINE.replace("teapot", "th\xe9").encode("cp1252")}, "", r"raw\.csv: line 2: .*not utf-8 encoded", id="another encoding"),
        pytest.param({"raw.csv": HEAD.encode() + LINE.encode() + b"2011-08-01,v,s,\x81\n"}, "options: {encoding: cp1252}", r"raw\.csv is not cp1252 encoded: line 3", id="not that encoding"),
        pytest.param({"raw-1.csv": HEAD + LINE, "raw-2.csv": "visit,seen\n"}, "options: {union_by_name: false}", r"raw-2\.csv has the columns visit, seen; raw-1\.csv has seen, visit, sku, q", id="other columns"),
        pytest.param({"raw.jsonl": jsonl({"visit": "v"}) * 3 + '{"visit": \n' + jsonl({"visit": "v"})}, "", r"raw\.jsonl: line 4: ", id="broken JSON"),
        pytest.param({"raw.jsonl": jsonl({"visit": "v"}).encode() + b'{"visit": "\xe9"}\n'}, "", r"raw\.jsonl: line 2: not utf-8 encoded", id="JSON in another encoding"),
        pytest.param({"raw.jsonl": "5\n6\n"}, "", r"raw\.jsonl holds no objects", id="JSON without objects"),
        pytest.param({"raw.csv": ""}, "", r"raw\.csv is empty", id="nothing"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_named_with_its_line_and_no_key_is_blamed(
    mapped: Mapped, files: dict[str, Content], top: str, problem: str
) -> None:
    mapped.write(files, top)
    with pytest.raises(
        DataError, match=rf"shop\.yaml:2: files: cannot be read as \w+: .*{problem}"
    ) as caught:
        mapped.rows("item_id")
    assert "options" in caught.value.detail
    assert "teapot" not in str(caught.value)  # a raw line may be personal


@pytest.mark.parametrize(
    ("content", "top", "changes", "key", "row"),
    [
        pytest.param({"raw.csv": HEAD + LINE * 3 + LINE.replace(",11,", ",eleven,")}, "", {"quantity": "sku"}, "columns.quantity", 4, id="CSV"),
        pytest.param({"raw.jsonl": jsonl({"sku": 1, "q": "", "visit": ""}, {"sku": "x", "q": "", "visit": ""})}, "", {"quantity": "sku"}, "columns.quantity", 2, id="JSON"),
        pytest.param({"raw.csv": HEAD + LINE + LINE.replace(",11,", ",eleven,")}, "options:\n  types: {sku: INTEGER}", {}, "options.types.sku", 2, id="a type of ours"),
        pytest.param({"raw.csv": HEAD + LINE + LINE.replace(",11,", ",eleven,")}, "rows: SELECT * FROM raw", {"quantity": "sku"}, "columns.quantity", 2, id="through rows"),
        pytest.param({"raw.csv": HEAD + LINE + LINE.replace(",11,", ",eleven,")}, "rows: SELECT *, CAST(sku AS INTEGER) AS n FROM raw", {"quantity": "n"}, "rows", None, id="in rows"),
    ],
)  # fmt: skip
def test_the_key_that_is_at_fault_is_blamed_with_the_row(
    mapped: Mapped, content: dict[str, str], top: str, changes: dict[str, str], key: str, row: int | None
) -> None:
    mapped.write(content, top, **changes)
    (name,) = content
    where = rf"\(row {row} of .*{name}\)" if row else ""
    said = r"a text cannot be converted to INT(32|64)"
    with pytest.raises(ConfigurationError, match=rf"shop\.yaml:\d+: {key}: {said}.*{where}") as caught:
        mapped.rows("item_id")
    assert not re.search("eleven|'x'", str(caught.value))  # a value may be personal


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("raw.csv", HEAD + LINE + "2011-08-01,v\n" + LINE + "broken\n" + LINE, id="CSV"),
        pytest.param("raw.jsonl", OBJECT + "\n{\n" + OBJECT + "}\n" + OBJECT, id="JSON"),
    ],
)  # fmt: skip
def test_rows_that_are_left_out_are_counted_and_named(mapped: Mapped, name: str, content: str) -> None:
    mapped.write({name: content}, "options: {max_rejects: 2}")
    assert mapped.rows("item_id") == [("11",)] * 3
    assert [row.partition(f"{name}: ")[2].partition(": ")[0] for row in mapped.rejected] == [
        f"line {line}" for line in (3, 5)
    ]
    mapped.write({name: content}, "options: {max_rejects: 1}")
    with pytest.raises(DataError, match=r"options\.max_rejects: 2 unreadable rows, at most 1 may be skipped"):
        mapped.rows("item_id")


# --- the row


def test_source_is_the_row_or_is_refused(mapped: Mapped) -> None:
    content = (HEAD + LINE).replace("visit", "source")
    mapped.write({"raw.csv": content}, session_id="source.source")
    with pytest.raises(
        ConfigurationError, match=r"shop\.yaml:6: columns\.event_id: `source` means the whole row"
    ):
        mapped.rows("session_id")
    rename = "rows: SELECT * RENAME (source AS visit) FROM raw"
    mapped.write({"raw.csv": content + content.partition("\n")[2].replace("v1", "v2")}, rename)
    assert len({event for (event,) in mapped.rows("event_id")}) == 2
    mapped.write({"raw.csv": content}, session_id="source.source", event_id="concat('source', sku)")
    assert mapped.rows("session_id", "event_id") == [("v1", "source11")]


# --- blanks


def test_blanks_are_unknown(mapped: Mapped) -> None:
    blank = ["", " ", "\t", "\u00a0", "\u200b", "\u3000 "]
    rows = [{"visit": value, "sku": value, "q": value} for value in blank] + [
        {"visit": "~", "sku": " a ", "q": " b"}
    ]
    mapped.write({"raw.jsonl": jsonl(*rows)}, category="visit", user_id="visit", item_title="visit")
    found = mapped.rows("session_id", "item_id", "query", "category", "user_id", "item_title")
    assert found[:-1] == [(None,) * 6] * len(blank)
    assert found[-1] == ("~", " a ", " b", "~", "~", "~")
