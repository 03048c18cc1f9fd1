"""New products without a night: the model that serves with another product list, published, released and rolled back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from tests.deployed import judged, put_state
from tests.searching_shop import LAUNCHED, put_products, searching_run
from tests.searching_shop import TITLES as KNOWN

from reshelve.compression.compress import compress
from reshelve.config.ranker import Ranker
from reshelve.deployments.deployment_log import Pointer, Revert, move_pointer
from reshelve.errors import ConfigurationError, DataError
from reshelve.examples.build import build_examples
from reshelve.export.package import package
from reshelve.kinds.search.blend_stage import BlendComparison, blend
from reshelve.lineage.run import Run
from reshelve.pipeline.publish import publish
from reshelve.pipeline.refresh import refresh
from reshelve.protocol.server_errors import NothingServesError
from reshelve.protocol.version_items import read_catalogue
from reshelve.settings import settings
from reshelve.statistics.bootstrap import LEAST_CLUSTERS
from reshelve.statistics.interval import Interval
from reshelve.store.objects import ObjectStore
from reshelve.store.versions import download_version, list_versions, require_manifest
from reshelve.training.launch import train

NIGHT = {"examples": build_examples, "train": train, "blend": blend, "compress": compress, "package": package}
TITLES = KNOWN | LAUNCHED
NEW = {"n0": "green cotton hammock", "n1": "brass doorbell"}
SOFTMAX: dict[str, Any] = {}
DUAL: dict[str, Any] = {"model.head": "titles", "model.vector_size": 64}


@pytest.fixture
def serving(
    store: ObjectStore, small_bert: Path, kept: Any, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Run]:
    """A night whose version serves, its transformer in the blend."""
    proof = BlendComparison(
        {"memory": 1.0, "with_encoder": 0.9}, Interval(-0.1, -0.2, -0.01), queries=LEAST_CLUSTERS
    )
    monkeypatch.setattr("reshelve.kinds.search.blend_stage.compare", lambda *_: proof)

    def night(**values: Any) -> Run:
        run = searching_run(store, settings().work, small_bert, launches=True, **values)
        kept.stages(run, NIGHT, str(sorted(values)))
        run.stage("gate").commit(judged(run, {"verdict": "promote", "reasons": ["measured"]}))
        version = run.stage("publish").commit(publish(run))["version"]
        serve(store, run.ranker, version)
        return run

    return night


def serve(store: ObjectStore, ranker: Ranker, version: int) -> None:
    put_state(store, Pointer(ranker=ranker.name, stable=version))


def answers(run: Run, version: int, *queries: str) -> tuple[list[list[str]], np.ndarray]:
    directory = settings().work / "asked" / str(version)
    directory.parent.mkdir(exist_ok=True)
    download_version(run.store, run.ranker.name, version, directory)
    said = tf.saved_model.load(str(directory)).signatures["serving_default"](query=tf.constant(list(queries)))
    return [[item.decode() for item in row] for row in said["item"].numpy()], said["score"].numpy()


@pytest.mark.slow
@pytest.mark.parametrize("values", [DUAL, SOFTMAX], ids=["titles", "softmax"])
def test_new_products_are_found_and_what_stays_is_answered_as_before(
    serving: Callable[..., Run], values: dict[str, Any]
) -> None:
    run = serving(**values)
    (parent,) = list_versions(run.store, "shelf")
    gone = {item: title for item, title in TITLES.items() if item != "i4"}
    put_products(run.store, {**gone, **NEW, "i7": "antique candle set"})
    found = refresh(run.ranker)
    # Of so small a shop's answers each has more than 1 % of its score at the two items that go or are renamed.
    assert found["verdict"] == "hold" and "too few answers to compare" in found["reason"], found
    assert (found["added"], found["removed"], found["retitled"]) == (2, 1, 1)
    assert found["missed"] == 0
    assert found["version"] == parent + 1, "of the same day: the next attempt"
    assert found["bytes"] == pytest.approx(found["foretold_bytes"], rel=0.1)

    manifest = require_manifest(run.store, "shelf", found["version"])
    lineage = manifest.lineage
    assert lineage.refreshed is not None and lineage.refreshed.parent == parent
    assert lineage.partition == run.partition and lineage.run != run.id
    assert lineage.verdicts == require_manifest(run.store, "shelf", parent).lineage.verdicts
    assert {item.id for item in read_catalogue(run.store, "shelf", found["version"])} == {*gone, *NEW}
    # As after a night: an item that nobody has chosen yet is found by its title, in both versions.
    assert "i5" in answers(run, parent, "small plate")[0][0]
    queries = ["lantern", "blue mug", "thing for tea", "best", "wooden heart"]
    before, _ = answers(run, parent, *queries)
    after, _ = answers(run, found["version"], *queries, *NEW.values(), "antique candle set", "star")
    assert [row[0] for row in after[:5]] == [row[0] for row in before]
    for item, row in zip([*NEW, "i7"], after[5:], strict=False):
        assert item in row
    assert not any("i4" in row for row in after)
    if values is DUAL:
        path = settings().work / "asked" / str(found["version"]) / "assets.extra" / "vectors.parquet"
        table = pq.read_table(path)
        vectors = dict(zip(table["item_id"].to_pylist(), np.array(table["vector"].to_pylist()), strict=True))
        assert {*NEW} < set(vectors) and "i6" not in vectors
        np.testing.assert_allclose([np.linalg.norm(each) for each in vectors.values()], 1.0, atol=1e-4)

    assert refresh(run.ranker)["version"] == found["version"], "once more is the same version"
    serve(run.store, run.ranker, found["version"])
    again = refresh(run.ranker)
    assert again["published"] is False and again["version"] is None
    assert "nothing to do" in again["headline"]
    # A person goes back to the version before: the same list is not released again of itself.
    put_state(run.store, Pointer(ranker="shelf", stable=found["version"], previous=parent))
    move_pointer(run.store, "shelf", Revert(parent), by="anna", reason="titles of last year")
    held = refresh(run.ranker)
    assert (held["version"], held["verdict"]) == (found["version"], "hold")
    assert "by anna: titles of last year" in held["reason"]
    serve(run.store, run.ranker, found["version"])
    put_products(run.store, TITLES)
    back = refresh(run.ranker)
    assert (back["version"], back["parent"]) == (found["version"] + 1, found["version"])
    assert {item.id for item in read_catalogue(run.store, "shelf", back["version"])} == set(TITLES)


def test_what_cannot_be_refreshed_says_so_at_once(
    store: ObjectStore, small_bert: Path, tmp_path: Path
) -> None:
    run = searching_run(store, tmp_path / "work", small_bert)
    with pytest.raises(NothingServesError, match="nothing was released yet"):
        refresh(run.ranker)
    other = run.ranker.model_copy(update={"kind": "next_item"})
    with pytest.raises(ConfigurationError, match="next_item ranker"):
        refresh(other)


@pytest.mark.slow
def test_files_that_are_not_the_versions_own_are_never_packaged(serving: Callable[..., Run]) -> None:
    run = serving(**DUAL)
    put_products(run.store, {**TITLES, **NEW})
    key = f"{run.stage('blend').prefix}/blend.safetensors"
    body = run.store.get(key)
    assert body is not None
    run.store.put(key, body.body + b" ")
    with pytest.raises(DataError, match=r"is not what version .* was made of"):
        refresh(run.ranker)
    assert len(list_versions(run.store, "shelf")) == 1


@pytest.mark.slow
def test_a_list_that_is_cut_off_or_none_is_refused(serving: Callable[..., Run], tmp_path: Path) -> None:
    run, path = serving(**DUAL), tmp_path / "products.csv"
    put_products(run.store, {"i0": "red paper lantern", **NEW})
    with pytest.raises(DataError, match="the list lacks 23 of the 24 items"):
        refresh(run.ranker)
    for body, said in {
        "item_id,name\n": r"products\.csv:1: no column title",
        "item_id,title\ni0,a\n,b\n": "line 3 has no item_id",
        "item_id,title\ni0,a\ni0,b\n": "line 3 gives an item another title",
        "item_id,title\ni0,a,b\n": r"products\.csv:2: 3 fields",
        'item_id,title\ni0,"a\n': r"products\.csv:2: no row",
        "item_id,title\n": "no product in it",
    }.items():
        path.write_text(body)
        with pytest.raises(DataError, match=said):
            refresh(run.ranker, path)
    path.with_suffix(".parquet").write_bytes(b"no parquet")
    with pytest.raises(DataError, match="cannot be read"):
        refresh(run.ranker, path.with_suffix(".parquet"))
    with pytest.raises(ConfigurationError, match="no such file"):
        refresh(run.ranker, tmp_path / "none.csv")
