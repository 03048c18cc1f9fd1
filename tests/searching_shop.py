"""A small shop with a few searches a day, and a run of a search ranker on it."""

from __future__ import annotations

import io
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from reshelve.clickstream.events import EVENT_SCHEMA, catalogue_key, validated_prefix
from reshelve.config.ranker import Ranker
from reshelve.lineage.run import Run
from reshelve.store.objects import ObjectStore
from reshelve.validation.verdicts import PartitionDecision, PartitionVerdict, verdict_key

FIRST, DAYS = date(2011, 8, 1), 8
TITLES = {
    "i0": "red paper lantern", "i1": "blue mug", "i2": "garden gnome", "i3": "wooden heart", "i4": "metal star",
    "i5": "small plate", "i6": None, "i7": "vintage candle set",
}  # fmt: skip
# What each query is answered with; nothing in `thing for tea` or `best` says so but behaviour.
CHOSEN = {
    "lantern": "i0", "red lantern": "i0", "blue mug": "i1", "thing for tea": "i1", "gnome": "i2", "best": "i6",
    "wooden heart": "i3", "star": "i4", "candles": "i7",
}  # fmt: skip

# Each day a product comes that is asked for at once: what is never chosen before may be what is meant.
LAUNCHED: dict[str, str | None] = {
    "l0": "striped beach towel", "l1": "copper kettle", "l2": "oak picture frame", "l3": "silver letter opener",
    "l4": "velvet cushion", "l5": "cast iron trivet", "l6": "bamboo wind chime", "l7": "linen apron",
    "l8": "marble chess board", "l9": "willow basket", "l10": "felt slippers", "l11": "ceramic owl",
    "l12": "leather notebook", "l13": "glass vase", "l14": "cork coaster", "l15": "wicker stool",
}  # fmt: skip


def write_day(store: ObjectStore, day: date, searched: bool = True, launched: tuple[str, ...] = ()) -> None:
    """One validated partition: every query is asked twice, and the titles of items that were `launched`."""
    rows, asked = [], [*CHOSEN.items(), *((LAUNCHED[item], item) for item in launched)]
    for number, (query, item) in enumerate(asked * 2):
        rows.append({
            **dict.fromkeys(EVENT_SCHEMA.names), "event_id": f"{day}-{number}", "event_type": "click",
            "event_time": datetime.combine(day, datetime.min.time()) + timedelta(minutes=number),
            "session_id": f"{day}-{number}", "query": query if searched else None, "item_id": item,
            "item_title": (TITLES | LAUNCHED)[item],
        })  # fmt: skip
    body = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=EVENT_SCHEMA), body)
    store.put(validated_prefix("shop", day) + "good.parquet", body.getvalue())
    said = PartitionVerdict(
        verdict=PartitionDecision.PASS,
        headline="said by the test",
        source="shop",
        partition=day,
        digest=f"d{day}",
    )
    store.put_json(verdict_key("shop", day), said.result())


def put_products(store: ObjectStore, titles: dict[str, str | None]) -> None:
    """The shop's product list, as landing leaves it."""
    body = io.BytesIO()
    pq.write_table(pa.table({"item_id": list(titles), "title": list(titles.values())}), body)
    store.put(catalogue_key("shop"), body.getvalue())


def searching_run(
    store: ObjectStore, work: Path, base: Path, *, launches: bool = False, **values: Any
) -> Run:
    """A run on eight days: five to train on, two to blend on, one held out. `launches`: two products come each day."""
    items = [*LAUNCHED] if launches else []
    for number in range(DAYS):
        write_day(store, FIRST + timedelta(days=number), launched=tuple(items[2 * number : 2 * number + 2]))
    put_products(store, TITLES | LAUNCHED if launches else TITLES)
    ranker = Ranker.model_validate({
        "name": "shelf", "title": "A shelf", "kind": "search",
        "data": {"source": "shop", "validation_partitions": 2},
        "model": {"base": str(base), "pooling": "mean", "max_length": 16},
        "training": {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3, "head_learning_rate": 1e-2},
        "compression": {"steps": [], "calibration_examples": 8},
        "gates": {"metric": "recall@5"}, "release": {"top": 5},
    })  # fmt: skip
    return Run(ranker.with_values(values), FIRST + timedelta(days=DAYS - 1), store, work)
