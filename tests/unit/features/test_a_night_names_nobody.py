"""A whole night's stages, and every file that they leave: only those that the list of personal data says so tell who asked what."""

from __future__ import annotations

import io
from datetime import date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.deployed import judged

from reshelve.clickstream.events import EVENT_SCHEMA, catalogue_key, validated_prefix
from reshelve.compression.compress import compress
from reshelve.config.ranker import Ranker
from reshelve.examples.build import build_examples
from reshelve.export.package import package
from reshelve.kinds.search.blend_stage import blend
from reshelve.lineage.run import Run
from reshelve.pipeline.personal_data import BUCKET, EXAMPLES, GOOD, HOME, WORK, held_as
from reshelve.pipeline.publish import publish
from reshelve.store.objects import ObjectStore
from reshelve.training.launch import train
from reshelve.validation.verdicts import PartitionDecision, PartitionVerdict, verdict_key

FIRST, DAYS = date(2011, 8, 1), 6
TITLES = {"i0": "blue mug", "i1": "garden gnome", "i2": "red paper lantern"}
CHOSEN = {"lantern": "i2", "blue mug": "i0", "gnome": "i1"}
WHO, VISIT, LONE = "customer-quentin", "visit-of-quentin", "quentin huber birkenweg"


def write_day(store: ObjectStore, day: date) -> None:
    """One validated partition: six ask each of the same, and one customer asks for himself."""
    asked = [(query, item, None, f"{day}-{query}-{n}") for query, item in CHOSEN.items() for n in range(6)]
    rows = [
        {**dict.fromkeys(EVENT_SCHEMA.names), "event_id": f"{day}-{number}", "event_type": "click",
         "event_time": datetime.combine(day, datetime.min.time()) + timedelta(minutes=number),
         "user_id": who, "session_id": visit, "query": query, "item_id": item, "item_title": TITLES[item]}
        for number, (query, item, who, visit) in enumerate([*asked, *[(LONE, "i1", WHO, VISIT)] * 4])
    ]  # fmt: skip
    body = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=EVENT_SCHEMA), body)
    store.put(validated_prefix("shop", day) + "good.parquet", body.getvalue())
    said = PartitionVerdict(
        verdict=PartitionDecision.PASS, headline="said by the test", source="shop", partition=day, digest=f"d{day}"
    )  # fmt: skip
    store.put_json(verdict_key("shop", day), said.result())


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_only_rows_and_examples_tell_who_asked_what(
    store: ObjectStore, tmp_path: Path, small_bert: Path
) -> None:
    """`forget` and housekeeping know those two by their names: what holds it elsewhere would stay."""
    for number in range(DAYS):
        write_day(store, FIRST + timedelta(days=number))
    listed = io.BytesIO()
    pq.write_table(pa.table({"item_id": list(TITLES), "title": list(TITLES.values())}), listed)
    store.put(catalogue_key("shop"), listed.getvalue())
    ranker = Ranker.model_validate({
        "name": "shelf", "title": "A shelf", "kind": "search", "data": {"source": "shop"},
        "model": {"base": str(small_bert), "pooling": "mean", "max_length": 16},
        "training": {"batch_size": 8, "learning_rate": 1e-3, "head_learning_rate": 1e-2},
        "compression": {"steps": [], "calibration_examples": 8}, "gates": {"metric": "recall@2"}, "release": {"top": 3},
    })  # fmt: skip
    run = Run(ranker, FIRST + timedelta(days=DAYS - 1), store, tmp_path / "work")
    for name, work in (
        ("examples", build_examples), ("train", train), ("blend", blend), ("compress", compress), ("package", package)
    ):  # fmt: skip
        run.stage(name).commit(work(run))
    run.stage("gate").commit(judged(run, {"verdict": "promote", "reasons": ["measured"]}))
    run.stage("publish").commit(publish(run))

    written = {key: (BUCKET, found.body) for key, _ in store.list("") if (found := store.get(key))}
    files = [path for path in run.work.rglob("*") if path.is_file()]
    written |= {f"work/{path.relative_to(run.work)}": (HOME, path.read_bytes()) for path in files}
    assert any(key.startswith("models/shelf/") for key in written)
    telling = {}
    for name, (places, body) in written.items():
        text = str(pq.read_table(io.BytesIO(body)).to_pylist()) if name.endswith(".parquet") else str(body)
        if any(word in text for word in (WHO, VISIT, LONE, "birkenweg")):
            telling[name] = held_as(name, places)
    assert {GOOD, EXAMPLES} <= set(telling.values()) <= {GOOD, EXAMPLES, WORK}, telling
    assert all("/examples/" in name for name, held in telling.items() if held is WORK), telling
