"""Counts with noise through the real stages, up to the published version and the night's report."""

from __future__ import annotations

import io
import json
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
from reshelve.examples.catalogue import Catalogue
from reshelve.export.package import package
from reshelve.features.tables import SearchTables
from reshelve.kinds.search.blend_stage import blend
from reshelve.lineage.run import Run
from reshelve.pipeline.publish import publish
from reshelve.reporting.night import Night
from reshelve.reporting.sections.privacy import privacy
from reshelve.statistics.noisy_counts import is_installed
from reshelve.store.objects import ObjectStore
from reshelve.store.versions import require_manifest
from reshelve.training.launch import train
from reshelve.validation.verdicts import PartitionDecision, PartitionVerdict, verdict_key

FIRST, DAYS = date(2011, 8, 1), 6
TITLES = {
    "i2": "red paper lantern",
    "i0": "blue mug",
    "i1": "garden gnome",
}  # not by demand, which is the other way round
CHOSEN = {
    "Red   LANTERN!": ("i2", 30),
    "thing for tea": ("i0", 20),
    "gnome": ("i1", 10),
}  # how many ask it a day
LONE = "anna huber birkenweg"


def write_day(store: ObjectStore, day: date) -> None:
    """One validated partition: many ask the same, each once; one customer asks for herself."""
    asked = [(query, item) for query, (item, times) in CHOSEN.items() for _ in range(times)]
    rows = [
        {**dict.fromkeys(EVENT_SCHEMA.names), "event_id": f"{day}-{number}", "event_type": "click",
         "event_time": datetime.combine(day, datetime.min.time()) + timedelta(minutes=number),
         "user_id": "anna" if query == LONE else None, "session_id": f"{day}-{number}", "query": query, "item_id": item,
         "item_title": TITLES[item]}
        for number, (query, item) in enumerate([*asked, *[(LONE, "i1")] * 9])
    ]  # fmt: skip
    body = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=EVENT_SCHEMA), body)
    store.put(validated_prefix("shop", day) + "good.parquet", body.getvalue())
    said = PartitionVerdict(
        verdict=PartitionDecision.PASS, headline="said by the test", source="shop", partition=day, digest=f"d{day}"
    )  # fmt: skip
    store.put_json(verdict_key("shop", day), said.result())


@pytest.fixture
def run(store: ObjectStore, tmp_path: Path, small_bert: Path) -> Run:
    """A night on six days whose counts get noise."""
    for number in range(DAYS):
        write_day(store, FIRST + timedelta(days=number))
    body = io.BytesIO()
    pq.write_table(pa.table({"item_id": list(TITLES), "title": list(TITLES.values())}), body)
    store.put(catalogue_key("shop"), body.getvalue())
    ranker = Ranker.model_validate({
        "name": "shelf", "title": "A shelf", "kind": "search", "data": {"source": "shop"},
        "model": {"base": str(small_bert), "pooling": "mean", "max_length": 16},
        "training": {"batch_size": 8, "learning_rate": 1e-3, "head_learning_rate": 1e-2},
        "compression": {"steps": [], "calibration_examples": 8}, "gates": {"metric": "recall@2"}, "release": {"top": 3},
        "remember": {"privacy": {"epsilon": 3.0, "per_customer": 1}},
    })  # fmt: skip
    return Run(ranker, FIRST + timedelta(days=DAYS - 1), store, tmp_path / "work")


@pytest.mark.slow
@pytest.mark.skipif(
    not is_installed(),
    reason="the extra privacy is not installed: pip install -c constraints.txt -e '.[privacy]'",
)
def test_a_version_with_noise_says_what_it_cost_and_holds_nothing_of_one(run: Run) -> None:
    for name, work in (
        ("examples", build_examples),
        ("train", train),
        ("blend", blend),
        ("compress", compress),
    ):
        run.stage(name).commit(work(run))
    tables = SearchTables.read(run.stage("blend").directory)
    assert tables.keys == ["gnome", "redlantern", "thingfortea"], (
        "five days of ten, thirty and twenty, above the threshold"
    )
    assert not {"w:anna", "w:huber", "w:birkenweg"} & set(tables.grams)
    assert list(Catalogue.read(run.stage("examples").directory / "catalogue.parquet").items) == sorted(TITLES)
    run.stage("package").commit(package(run))
    run.stage("gate").commit(judged(run, {"verdict": "promote", "reasons": ["measured"]}))
    run.stage("publish").commit(publish(run))

    version = run.stage("package").directory / "version"
    lines = (version / "assets.extra" / "catalogue.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"item": item, "title": TITLES[item], "events": 0} for item in sorted(TITLES)
    ]
    for path in version.rglob("*"):
        body = path.read_bytes() if path.is_file() else b""
        assert b"birkenweg" not in body and b"LANTERN!" not in body and b"thing for tea" not in body, (
            path.name
        )

    number = run.stage("publish").required()["version"]
    spent = require_manifest(run.store, "shelf", number).lineage.privacy
    assert spent is not None and 2.9 < spent.epsilon <= 3.0 and (spent.delta, spent.per_customer) == (1e-6, 1)
    assert spent.threshold > spent.noise > 1
    said = privacy(Night.read(run))
    assert said is not None and "(3, 0.000001)" in said.lead
    assert ("Over the versions kept when this was made", "ε 3, δ 0.000001, the sum over 1") in said.parts[
        0
    ].rows
