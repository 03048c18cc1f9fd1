"""A hundred partitions that no shop should deliver: each ends in a verdict or a clear error, and no row is lost."""

from __future__ import annotations

import gzip
import io
import json
import random
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reshelve.clickstream.events import EVENT_SCHEMA
from reshelve.errors import ReshelveError
from reshelve.validation.partition_check import PartitionCheck
from reshelve.validation.rules import load_rules
from reshelve.validation.verdicts import PartitionVerdict

DAY = date(2011, 8, 1)
SHIPPED = load_rules()
KINDS: set[str] = set()
# One rule of each kind: what a kind cannot bear, no other rule of it can.
RULES = SHIPPED.model_copy(
    update={
        "rules": tuple(
            rule
            for rule in SHIPPED.rules
            if rule.check == "expression" or not (rule.check in KINDS or KINDS.add(rule.check))  # type: ignore[func-returns-value]
        )
    }
)
Files = dict[str, bytes]


def event(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "event_id": f"e{number}", "event_time": datetime(2011, 8, 1, 9) + timedelta(seconds=number), "event_type": "purchase",
        "user_id": "u", "session_id": f"s{number // 3}", "query": "tea pot", "item_id": f"i{number % 7}", "item_title": "TEAPOT",
        "position": None, "quantity": 2, "price": 1.25, "grade": None,
        "category": None, "segment": None, **changes,
    }  # fmt: skip


def table(rows: int = 60, **changes: Any) -> pa.Table:
    """Good events, the tenth changed."""
    made = [event(n, **(changes if n == 10 else {})) for n in range(rows)]
    return pa.Table.from_pylist(made, schema=EVENT_SCHEMA)


def parquet(content: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(content, sink, **options)
    return sink.getvalue()


def typed(name: str, column: pa.Array | pa.ChunkedArray) -> bytes:
    """Good events with another column of that name."""
    made = table()
    return parquet(made.set_column(made.schema.get_field_index(name), name, column))


def csv(lines: list[str]) -> bytes:
    return ("\n".join([",".join(EVENT_SCHEMA.names), *lines]) + "\n").encode()


GOOD_LINE = "e1,2011-08-01 09:00:00,purchase,u,s1,tea,i1,TEAPOT,,2,1.25,"


def jsonl(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row, default=str) + "\n" for row in rows).encode()


def damaged() -> Iterator[tuple[str, Files]]:
    """Files that are not whole."""
    whole = parquet(table())
    for tenth in range(10):
        yield f"truncated at {tenth} tenths", {"a.parquet": whole[: len(whole) * tenth // 10]}
    chance = random.Random(7)
    for number in range(20):
        bad = bytearray(whole)
        for _ in range(8):
            bad[chance.randrange(4, len(bad) - 8)] = chance.randrange(256)
        yield f"flipped bytes {number}", {"a.parquet": bytes(bad)}
    yield "one good and one truncated", {"a.parquet": whole, "b.parquet": whole[:500]}
    for ending in ("csv", "csv.gz", "jsonl", "jsonl.gz"):
        yield f"empty {ending}", {f"a.{ending}": b""}
    yield "gzip that is truncated", {"a.csv.gz": gzip.compress(csv([GOOD_LINE] * 500))[:60]}
    yield "gzip that is none", {"a.csv.gz": b"not gzip at all"}
    yield "an ending nobody knows", {"a.xlsx": whole}
    yield "zeros", {"a.parquet": bytes(4096)}
    yield "text as Parquet", {"a.parquet": b"hello"}


def schemas() -> Iterator[tuple[str, Files]]:
    """Columns that are missing, retyped, nested or twice."""
    made = table()
    for name in EVENT_SCHEMA.names:
        yield f"without {name}", {"a.parquet": parquet(made.drop_columns([name]))}
        yield f"{name} as a list", {"a.parquet": typed(name, pa.array([[1, 2]] * 60))}
    for name in ("event_id", "event_time", "price", "quantity"):
        yield f"{name} as a struct", {"a.parquet": typed(name, pa.array([{"a": 1}] * 60))}
    yield "price as text", {"a.parquet": typed("price", pa.array(["1.25"] * 60))}
    yield "price as decimal", {"a.parquet": typed("price", pa.array([1] * 60).cast(pa.decimal128(28, 2)))}
    yield "quantity as uint64", {"a.parquet": typed("quantity", pa.array([2**64 - 1] * 60, pa.uint64()))}
    yield "time as text", {"a.parquet": typed("event_time", pa.array(["2011-08-01"] * 60))}
    yield (
        "time in nanoseconds",
        {"a.parquet": typed("event_time", made["event_time"].cast(pa.timestamp("ns")))},
    )
    yield "all columns null", {"a.parquet": parquet(pa.table({n: pa.nulls(60) for n in EVENT_SCHEMA.names}))}
    yield "no columns we know", {"a.parquet": parquet(pa.table({"x": [1]}))}
    yield (
        "further nested columns",
        {"a.parquet": parquet(made.append_column("deep", pa.array([[{"a": [1]}]] * 60)))},
    )
    yield "two schemas", {"a.parquet": parquet(made), "b.parquet": parquet(made.drop_columns(["price"]))}
    yield "two types", {"a.parquet": parquet(made), "b.parquet": typed("quantity", pa.array(["two"] * 60))}
    yield (
        "further columns in one file",
        {"a.parquet": parquet(made), "b.parquet": parquet(made.append_column("new", pa.array(["x"] * 60)))},
    )
    yield "upper case", {"a.parquet": parquet(made.rename_columns([n.upper() for n in made.column_names]))}
    yield "a column of our own name", {"a.parquet": parquet(made.append_column("_row", pa.array([7] * 60)))}
    yield (
        "a column called filename",
        {"a.parquet": parquet(made.append_column("filename", pa.array(["x"] * 60)))},
    )


def values() -> Iterator[tuple[str, Files]]:
    """Rows that are wrong in themselves."""
    for name in ("price", "grade"):
        for value in (float("nan"), float("inf"), float("-inf"), -0.0, 1e308):
            yield f"{name} {value}", {"a.parquet": parquet(table(**{name: value}))}
    for when in (datetime(1, 1, 1), datetime(9999, 12, 31), datetime(1969, 12, 31, 23, 59, 59), None):
        yield f"time {when}", {"a.parquet": parquet(table(event_time=when))}
    far = pa.array([2**63 - 1] * 60, pa.int64()).cast(pa.timestamp("us"))
    yield "time at the end of time", {"a.parquet": typed("event_time", far)}
    for name in ("query", "item_id", "item_title", "event_id"):
        yield f"10,000 characters of {name}", {"a.parquet": parquet(table(**{name: "x\U0001f600" * 5000}))}
    for name in ("query", "item_title", "event_type", "session_id"):
        raw = pa.array([b"\xff\xfe\xc3("] * 60).view(pa.string())
        yield f"invalid UTF-8 in {name}", {"a.parquet": typed(name, raw)}
    yield "NUL characters", {"a.parquet": parquet(table(query="a\x00b", item_id="\x00"))}
    yield "quotes and SQL", {"a.parquet": parquet(table(query="'; DROP TABLE events; --", item_id='"'))}
    yield "largest numbers", {"a.parquet": parquet(table(quantity=2**63 - 1, position=-(2**63)))}
    yield "zero rows", {"a.parquet": parquet(table(0))}
    yield "zero rows and some", {"a.parquet": parquet(table(0)), "b.parquet": parquet(table())}
    yield (
        "all rows bad",
        {
            "a.parquet": parquet(
                pa.Table.from_pylist([dict.fromkeys(EVENT_SCHEMA.names)] * 60, schema=EVENT_SCHEMA)
            )
        },
    )


def texts() -> Iterator[tuple[str, Files]]:
    """CSV and JSON lines as people export them."""
    yield "CSV with a word for a number", {"a.csv": csv([GOOD_LINE, GOOD_LINE.replace("1.25", "cheap")])}
    yield (
        "CSV with a word for a time",
        {"a.csv": csv([GOOD_LINE.replace("2011-08-01 09:00:00", "yesterday")])},
    )
    yield "CSV with too many fields", {"a.csv": csv([GOOD_LINE] * 30 + [GOOD_LINE + ",1,2,3"])}
    yield "CSV with too few fields", {"a.csv": csv([GOOD_LINE] * 30 + ["e1,2"])}
    yield "CSV with an open quote", {"a.csv": csv([GOOD_LINE] * 30 + ['e1,"2011'])}
    yield "CSV in Latin-1", {"a.csv": csv([GOOD_LINE]).replace(b"TEAPOT", b"TH\xc9I\xc8RE")}
    yield "CSV header alone", {"a.csv": csv([])}
    yield "CSV without header", {"a.csv": GOOD_LINE.encode()}
    yield "JSON that is broken", {"a.jsonl": b'{"event_id": "e1", \n'}
    yield "JSON of arrays", {"a.jsonl": b"[1, 2]\n[3]\n"}
    yield "JSON with other keys in each line", {"a.jsonl": jsonl([event(1), {"x": 1}, {"event_id": 5}])}
    yield "JSON with nested values", {"a.jsonl": jsonl([event(1, query={"deep": [1]})])}
    yield "JSON with huge numbers", {"a.jsonl": jsonl([event(1, quantity=10**30)])}
    yield (
        "three formats at once",
        {"a.parquet": parquet(table()), "b.csv": csv([GOOD_LINE]), "c.jsonl": jsonl([event(99)])},
    )


CASES = dict([*damaged(), *schemas(), *values(), *texts()])


def test_there_are_a_hundred() -> None:
    assert len(CASES) >= 100


def assert_nothing_lost(verdict: PartitionVerdict, out: Path) -> None:
    assert verdict.rows_in == verdict.rows_good + verdict.rows_quarantined
    assert "Traceback" not in verdict.headline
    if verdict.usable:
        kept = (
            pq.read_metadata(out / "good.parquet").num_rows,
            pq.read_metadata(out / "quarantine.parquet").num_rows,
        )
        assert kept == (verdict.rows_good, verdict.rows_quarantined)
    else:
        assert not (out / "good.parquet").exists()
        assert verdict.rules
    assert (out / "report.html").is_file()


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize("case", CASES)
def test_a_malformed_partition_ends_in_a_verdict_or_a_clear_error(tmp_path: Path, case: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    files = []
    for name, content in CASES[case].items():
        (tmp_path / name).write_bytes(content)
        files.append(tmp_path / name)
    try:
        verdict = PartitionCheck("retail", DAY, RULES, tmp_path / "p.duckdb", out).judge(files)
    except ReshelveError as error:
        assert error.headline
        return
    assert_nothing_lost(verdict, out)
