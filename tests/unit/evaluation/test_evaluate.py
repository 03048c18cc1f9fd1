"""A published version is scored on any validated days, with or without a past."""

from __future__ import annotations

import io
import json
from datetime import date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from tests.deployed import judged
from typer.testing import CliRunner

from reshelve.cli import app
from reshelve.clickstream.events import EVENT_SCHEMA, validated_prefix
from reshelve.errors import ConfigurationError, DataError
from reshelve.evaluation.evaluate import evaluate
from reshelve.evaluation.evaluation_page import page
from reshelve.pipeline.publish import publish
from reshelve.settings import settings
from reshelve.store.objects import ObjectStore
from reshelve.validation.verdicts import PartitionDecision, PartitionVerdict, verdict_key

from .test_gate import ITEMS, package_model, run_of

SHOP, OTHER = "shop", "elsewhere"


def validated(store: ObjectStore, source: str, day: date, baskets: list[list[str]]) -> None:
    """A day of baskets as validation leaves it."""
    rows = [
        {
            **dict.fromkeys(EVENT_SCHEMA.names),
            "event_id": f"{day}-{n}-{item}",
            "event_time": datetime(day.year, day.month, day.day, 9, place),
            "event_type": "click",
            "session_id": f"{day}-{n}",
            "item_id": item,
            "item_title": item,
        }
        for n, basket in enumerate(baskets)
        for place, item in enumerate(basket)
    ]
    body = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=EVENT_SCHEMA), body)
    store.put(validated_prefix(source, day) + "good.parquet", body.getvalue())
    said = PartitionVerdict(
        verdict=PartitionDecision.PASS, headline="", source=source, partition=day, digest=f"d{day}"
    )
    store.put_json(verdict_key(source, day), said.result())


@pytest.fixture
def published(store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """A version that answers the items 25 to 29 first, its ranker file, and what two sources hold."""
    run = run_of(store, tmp_path, "next_item")
    package_model(run, ITEMS[25:])
    run.stage("gate").commit(judged(run, {"verdict": "promote", "reasons": []}))
    rankers = tmp_path / "rankers"
    rankers.mkdir()
    document = {
        "name": "shelf",
        "title": "A shelf",
        "kind": "next_item",
        "data": {"source": SHOP},
        "gates": {"metric": "recall@5"},
    }
    for name in ("shelf", "other"):
        (rankers / f"{name}.yaml").write_text(yaml.safe_dump({**document, "name": name}))
    monkeypatch.setenv("RESHELVE_RANKERS_DIR", str(rankers))
    settings.cache_clear()
    validated(store, SHOP, date(2011, 9, 1), [[ITEMS[n % 20], ITEMS[n % 7]] for n in range(30)])
    validated(store, SHOP, date(2011, 9, 2), [[ITEMS[n % 20], ITEMS[25 + n % 5]] for n in range(30)])
    validated(store, OTHER, date(2012, 1, 1), [[ITEMS[n % 20], ITEMS[25]] for n in range(9)] + [["a", "b"]])
    return int(publish(run)["version"])


@pytest.mark.slow
def test_a_version_is_scored_on_any_source(published: int, store: ObjectStore) -> None:
    before = list(store.list(""))
    found = evaluate(published, SHOP)
    assert (found["ranker"], found["first"], found["days_before"]) == ("shelf", "2011-09-02", 1)
    assert found["value"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert found["metrics"]["popularity"]["recall@5"]["value"] < 0.5
    assert found["differences"]["popularity"]["low"] > 0 and found["queries"] >= 30
    assert list(store.list("")) == before, "nothing is written"

    answer = CliRunner().invoke(
        app, ["evaluate", "-v", str(published), "-s", OTHER, "--metric", "mrr@10", "--json"]
    )
    assert answer.exit_code == 0, answer.output
    alone = json.loads(answer.stdout.strip().splitlines()[-1])
    assert (alone["metric"], alone["days_before"], alone["differences"]) == ("mrr@10", 0, {})
    assert list(alone["metrics"]) == ["version"] and alone["unknown_answers"] == 1
    assert alone["value"]["low"] < alone["value"]["value"] < 1, "one basket holds what the version never saw"
    shown = "\n".join(page(alone))
    assert f"shelf version {published} on elsewhere, 2012-01-01" in shown
    assert "1 questions have no relevant item" in shown and "No earlier day is validated" in shown

    path = settings().rankers_dir / "shelf.yaml"
    document = yaml.safe_load(path.read_text())
    document["data"]["exclude"] = {"items": [ITEMS[25]]}
    document["examples"] = {"repeat": False}
    path.write_text(yaml.safe_dump(document))
    assert evaluate(published, SHOP)["queries"] == found["queries"] - 6, "no product, no question"

    with pytest.raises(DataError, match="no usable day between 2013-01-01 and its last"):
        evaluate(published, SHOP, first=date(2013, 1, 1))
    with pytest.raises(DataError, match="no ranker has published version 20990101001"):
        evaluate(20990101001, SHOP)
    with pytest.raises(ConfigurationError, match=r"gates\.metric"):
        evaluate(published, SHOP, metric="recall")
    with pytest.raises(DataError, match="other version 20110830001 is not published"):
        evaluate(published, SHOP, ranker="other")
