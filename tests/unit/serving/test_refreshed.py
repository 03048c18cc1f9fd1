"""New products through real processes: a night, its release, a new product list, its release, and a rollback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.deployed import judged
from tests.searching_shop import LAUNCHED, TITLES, put_products, searching_run

from reshelve.client.client import RankingClient
from reshelve.compression.compress import compress
from reshelve.deployments.deployment_log import problems, read_log
from reshelve.examples.build import build_examples
from reshelve.export.package import package
from reshelve.kinds.search.blend_stage import blend
from reshelve.pipeline.publish import publish
from reshelve.pipeline.refresh import refresh
from reshelve.rollout.release import release
from reshelve.rollout.roll_back import rollback
from reshelve.settings import settings
from reshelve.store.objects import ObjectStore
from reshelve.training.launch import train

NIGHT = {"examples": build_examples, "train": train, "blend": blend, "compress": compress, "package": package}
QUERY = "green cotton hammock"


def answered(host: Any, query: str) -> tuple[int, list[str]]:
    """The version that customers get, and the items of its answer."""
    with RankingClient(host.grpc) as client:
        answer = client.predict("shelf", {"query": [query]}, timeout=60)
    return answer.version, [str(item) for item in answer.outputs["item"][0]]


@pytest.mark.slow
def test_a_new_product_is_served_and_a_rollback_takes_it_back(
    store: ObjectStore, small_bert: Path, host: Any
) -> None:
    run = searching_run(store, settings().work, small_bert, launches=True, **{"model.head": "titles"})
    for name, work in NIGHT.items():
        run.stage(name).commit(work(run))
    run.stage("gate").commit(judged(run, {"verdict": "promote", "reasons": ["measured"]}))
    first = int(run.stage("publish").commit(publish(run))["version"])
    host.start_agent()
    host.start_server()
    assert release(run.ranker, first, by="test")["state"] == "promoted"
    version, items = answered(host, QUERY)
    assert version == first and "n0" not in items

    put_products(store, {**TITLES, **LAUNCHED, "n0": QUERY})
    second = refresh(run.ranker)["version"]
    released = release(run.ranker, second, by="test", reason="a new product list")
    assert released["state"] == "promoted"
    version, items = answered(host, QUERY)
    assert version == second and "n0" in items
    assert answered(host, "blue mug")[1][0] == "i1"

    back = rollback("shelf", to=None, by="anna", reason="too early")
    assert (back["state"], back["version"], back["from"]) == ("rolled_back", first, second)
    version, items = answered(host, QUERY)
    assert version == first and "n0" not in items, "catalogue and model go back together"
    assert not problems(read_log(store, "shelf"))
