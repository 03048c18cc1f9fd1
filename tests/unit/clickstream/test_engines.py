"""One partition, one set of rules: the same verdict and the same counts on DuckDB, pandas and Spark."""

from __future__ import annotations

import importlib.util
import shutil
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reshelve.clickstream.events import EVENT_SCHEMA
from reshelve.errors import ConfigurationError
from reshelve.validation.partition_check import PartitionCheck
from reshelve.validation.rules import load_rules
from reshelve.validation.verdicts import PartitionVerdict

DAY = date(2026, 3, 2)
MORNING = datetime(2026, 3, 2, 9)


def session(number: int) -> list[dict[str, Any]]:
    """Five impressions, a click and a purchase."""
    base = {
        "user_id": f"u{number % 50}", "session_id": f"s{number}", "query": f"query {number % 9}", "item_title": "Lamp",
        "position": None, "quantity": None, "price": None, "grade": None,
    }  # fmt: skip
    kinds = ["impression"] * 5 + ["click", "purchase"]
    rows = [
        {**base, "event_id": f"{number}-{place}", "event_type": kind, "item_id": f"i{place % 5}",
         "event_time": MORNING + timedelta(seconds=number * 60 + place)}
        for place, kind in enumerate(kinds)
    ]  # fmt: skip
    for place in range(5):
        rows[place]["position"] = place + 1
    rows[6] |= {"quantity": 1, "price": 1.0 + number}
    return rows


FAULTS: list[tuple[int, dict[str, Any]]] = [
    (10, {"event_id": None}), (20, {"event_id": "0-0"}), (30, {"event_time": None}), (41, {"event_time": MORNING + timedelta(days=1)}),
    (50, {"item_id": None}), (60, {"session_id": None}), (70, {"event_type": "clik"}), (80, {"event_type": None}),
    (90, {"position": 0}), (104, {"quantity": 0}), (111, {"price": float("nan")}), (118, {"price": -1.0}),
    (121, {"query": "é" * 257}), (131, {"event_type": "judgement", "grade": float("inf")}), (145, {"item_id": "never shown"}),
]  # fmt: skip


@pytest.fixture(scope="module")
def landed(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """700 rows in two files: every row fault once, a bot, and clicks told twice."""
    rows = [row for number in range(100) for row in session(number)]
    for at, change in FAULTS:
        rows[at] |= change
    for place, row in enumerate(row for row in rows[350:385]):  # 35 clicks of one visit in four seconds
        row |= {"event_type": "click", "session_id": "bot", "quantity": None, "price": None}
        row["event_time"] = MORNING + timedelta(milliseconds=100 * place)
    rows[404] = {**rows[397], "event_id": "told again"} if rows[397]["event_type"] == "click" else rows[404]
    directory = tmp_path_factory.mktemp("landed")
    files = []
    for number, part in enumerate((rows[:300], rows[300:])):
        files.append(directory / f"part-{number}.parquet")
        pq.write_table(pa.Table.from_pylist(part, schema=EVENT_SCHEMA), files[-1])
    return files


def judge(engine: str, files: list[Path], directory: Path) -> tuple[PartitionVerdict, dict[str, bytes]]:
    """The verdict, and the bytes of its files."""
    directory, out = directory / engine, directory / engine / "out"
    out.mkdir(parents=True)
    products = directory / "products.parquet"
    pq.write_table(pa.table({"item_id": [f"i{n}" for n in range(5)], "title": ["Lamp"] * 5}), products)
    verdict = PartitionCheck(
        "shop", DAY, load_rules(), directory / "partition.duckdb", out, products, engine=engine
    ).judge(files)
    return verdict, {path.name: path.read_bytes() for path in out.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["pandas", "spark"])
def test_every_engine_says_the_same(
    landed: list[Path], tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if engine == "spark":
        if importlib.util.find_spec("pyspark") is None:
            pytest.skip("pyspark is not installed: the extra `spark`")
        if shutil.which("java") is None:
            pytest.skip("there is no Java")
        monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        monkeypatch.setenv(
            "PYSPARK_SUBMIT_ARGS", "--master local[1] --conf spark.sql.shuffle.partitions=1 pyspark-shell"
        )
    expected = judge("duckdb", landed, tmp_path)
    found = judge(engine, landed, tmp_path)
    assert found[0].model_copy(update={"engine": "duckdb"}) == expected[0]
    assert found[0].engine == engine
    assert found[1] == expected[1]
    broken = {rule.rule: rule.failed_rows for rule in expected[0].rules}
    assert broken["price_possible"] == 2  # NaN, and below zero
    assert {"event_once", "session_human", "grade_given", "query_length", "clicked_was_shown"} <= set(broken)


def test_an_engine_nobody_knows_is_refused(landed: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="'oracle' is not a validation engine"):
        judge("oracle", landed, tmp_path)
