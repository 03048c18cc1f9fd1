"""Small partitions with known faults, landed on the real object store."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reshelve.clickstream.events import EVENT_SCHEMA, landed_prefix
from reshelve.store.objects import ObjectStore

DAY = date(2011, 8, 1)


def event(number: int, **changes: Any) -> dict[str, Any]:
    """One good purchase; `changes` make it something else."""
    return {
        "event_id": f"e{number}",
        "event_time": datetime(2011, 8, 1, 9, number % 60),
        "event_type": "purchase",
        "user_id": "secret-user",
        "session_id": f"s{number // 3}",
        "query": None,
        "item_id": f"i{number % 7}",
        "item_title": f"TEAPOT NUMBER {number % 7}",
        "position": None,
        "quantity": 2,
        "price": 1.25,
        "grade": None,
        "category": None,
        "segment": None,
        **changes,
    }


def as_parquet(table: pa.Table) -> bytes:
    """The bytes of a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


@pytest.fixture
def events() -> Callable[..., pa.Table]:
    """`events(40, {3: {"item_id": None}})`: a table of 40 good events, row 3 changed."""

    def make(rows: int, changes: dict[int, dict[str, Any]] | None = None) -> pa.Table:
        return pa.Table.from_pylist(
            [event(row, **(changes or {}).get(row, {})) for row in range(rows)], schema=EVENT_SCHEMA
        )

    return make


@pytest.fixture
def land_bytes(store: ObjectStore) -> Callable[..., None]:
    """Put a table, or raw bytes, where source `retail` lands its partition of a day, DAY."""

    def put(content: pa.Table | bytes, name: str = "part-0.parquet", day: date = DAY) -> None:
        body = content if isinstance(content, bytes) else as_parquet(content)
        store.put(landed_prefix("retail", day) + name, body)

    return put


@pytest.fixture
def read_table(store: ObjectStore, tmp_path: Path) -> Callable[[str], pa.Table]:
    """A Parquet object of the store as a table."""

    def read(key: str) -> pa.Table:
        found = store.get(key)
        assert found is not None, key
        return pq.read_table(io.BytesIO(found.body))

    return read


@pytest.fixture
def raw_source(store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Write a mapping file `shop.yaml` over a CSV of the given text; returns the mapping's path."""
    from reshelve.settings import settings

    monkeypatch.setenv("RESHELVE_CLICKSTREAMS_DIR", str(tmp_path / "clickstreams"))
    settings.cache_clear()

    def write(csv: str, **changes: str) -> Path:
        (tmp_path / "raw.csv").write_text(csv)
        keys = {
            "event_id": "md5(CAST(source AS VARCHAR))",
            "event_time": "CAST(seen AS TIMESTAMP)",
            "event_type": "'click'",
            "user_id": '"NULL"',
            "session_id": "visit",
            "query": "q",
            "item_id": "CAST(sku AS VARCHAR)",
            "item_title": '"NULL"',
            "position": '"NULL"',
            "quantity": '"NULL"',
            "price": '"NULL"',
            "grade": '"NULL"',
            "category": '"NULL"',
            "segment": '"NULL"',
            **changes,
        }
        lines = [
            "name: shop",
            f"files: {tmp_path}/raw*.csv",
            "format: csv",
            "event_date: CAST(seen AS DATE)",
            "columns:",
        ]
        lines += [
            f"  {key}: {value if value.startswith(chr(34)) else chr(34) + value + chr(34)}"
            for key, value in keys.items()
            if value
        ]
        path = tmp_path / "clickstreams" / "shop.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
        return path

    return write
