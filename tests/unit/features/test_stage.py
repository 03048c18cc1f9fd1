"""A small shop's searches through the real stages (examples, train, blend, compress, package), and served."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from tests.deployed import judged
from tests.searching_shop import CHOSEN, TITLES, searching_run

from reshelve.compression.compress import compress
from reshelve.errors import DataError
from reshelve.examples.build import build_examples
from reshelve.examples.catalogue import Catalogue
from reshelve.examples.formats import read_holdout
from reshelve.export.operations import check_operations
from reshelve.export.package import package
from reshelve.features.blend import Lists
from reshelve.features.evidence import FEATURES, SearchEvidence
from reshelve.features.tables import SearchTables
from reshelve.files import digest_of_file
from reshelve.kinds.search.blend_stage import BlendComparison, _Encoder, blend, compare, read_blend
from reshelve.lineage.run import Run
from reshelve.modelserver.local_server import running_model_server
from reshelve.pipeline.publish import publish
from reshelve.protocol.saved_model_check import check_saved_model
from reshelve.settings import PROJECT
from reshelve.statistics.bootstrap import LEAST_CLUSTERS
from reshelve.statistics.interval import Interval
from reshelve.store.objects import ObjectStore
from reshelve.training.launch import train
from reshelve.training.title_cache import TitleCache, encoder_digest

LEARNED = {"examples": build_examples, "train": train}


@pytest.fixture
def make_run(store: ObjectStore, tmp_path: Path, small_bert: Path) -> Callable[..., Run]:
    """`make_run(**values)`: a run of `tests.searching_shop`."""
    return lambda **values: searching_run(store, tmp_path / "work", small_bert, **values)


def strings(*texts: str) -> tf.Tensor:
    return tf.constant([text.encode() for text in texts])


def assert_answers_well(run: Run, encoder: bool) -> None:
    """The reloaded version against its parts and against itself."""
    version = run.stage("package").directory / "version"
    functions = dict(tf.saved_model.load(str(version)).signatures)
    assert set(functions) == {"serving_default", "logits", "score"}
    assert check_operations(version)
    items = list(Catalogue.read(run.stage("examples").directory / "catalogue.parquet").items)
    queries = [*CHOSEN, "lanten", "nobody ever asked", "", "?!", "日本"]
    logits = functions["logits"](query=strings(*queries))["logits"].numpy()
    assert logits.shape == (len(queries), len(items)) and np.isfinite(logits).all()

    directory = run.stage("blend").directory
    _, fitted = read_blend(directory)
    features = SearchEvidence(SearchTables.read(directory)).features(tf.constant(queries)).numpy()
    if encoder:
        read = _Encoder(run.stage("train").directory).logits(queries)
        features = np.concatenate([features, read[..., None]], axis=-1)
    assert np.allclose(fitted.scores(tf.constant(features)), logits, atol=1e-3)

    best = functions["serving_default"](query=strings(*queries))
    order = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    assert [[item.decode() for item in row] for row in best["item"].numpy()] == [
        [items[place] for place in row] for row in order
    ]
    likely = np.exp(logits - logits.max(1, keepdims=True))
    likely /= likely.sum(1, keepdims=True)
    assert np.allclose(best["score"], np.take_along_axis(likely, order, axis=1), atol=1e-5)

    asked = ["i3", "not here", "i0", "i3"]
    score = functions["score"](query=strings("wooden heart"), item=strings(*asked))["score"].numpy()
    of_query = likely[queries.index("wooden heart")]
    expected = [0.0 if item == "not here" else of_query[items.index(item)] for item in asked]
    assert score == pytest.approx(expected, abs=1e-5) and score[0] > score[2]
    first = [items[place] for place in logits.argmax(1)]
    assert dict(zip(queries, first, strict=True)) | CHOSEN == dict(zip(queries, first, strict=True))
    assert first[queries.index("lanten")] == "i0", "a misspelt query means its neighbour"


@pytest.mark.slow
def test_a_search_version(make_run: Callable[..., Run], kept: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run()
    kept.stages(run, LEARNED)
    result = blend(run)
    assert set(result) == {
        "encoder",
        "losses",
        "difference",
        "questions",
        "partitions",
        "queries_remembered",
        "queries_asked",
    }
    assert result["partitions"] == ["2011-08-06", "2011-08-07"]
    assert result["questions"] == 2 * len(CHOSEN)
    assert result["queries_remembered"] == len(CHOSEN)
    assert set(result["losses"]) == {"memory", "with_encoder"}
    assert all(0 < loss < np.log(len(TITLES)) for loss in result["losses"].values())
    assert not result["encoder"], "nine queries prove nothing"
    directory = run.stage("blend").directory
    assert {path.name for path in directory.iterdir()} == {
        "memory.safetensors", "memory.parquet", "blend.safetensors", "blend.json",
    }  # fmt: skip
    asked = np.expm1(  # seven days are remembered, the held-out one is not
        SearchEvidence(SearchTables.read(directory)).features(strings("gnome")).numpy()[0, 0]
    )[FEATURES.index("query_count_ever")]
    assert asked == pytest.approx(2 * 7, rel=1e-4)

    for encoder in (False, True):
        proof = Interval(-0.1, -0.2, -0.01) if encoder else Interval(-0.1, -0.2, 0.01)
        compared = BlendComparison({"memory": 1.0, "with_encoder": 0.9}, proof, queries=LEAST_CLUSTERS)
        monkeypatch.setattr("reshelve.kinds.search.blend_stage.compare", lambda *_, it=compared: it)
        run.stage("blend").commit(blend(run))
        document, fitted = read_blend(directory)
        assert document.encoder is encoder
        assert document.features == ((*FEATURES, "encoder") if encoder else FEATURES)
        assert fitted.linear.shape == (len(document.features),)
        run.stage("compress").commit(compress(run))
        packaged = package(run)
        assert packaged["max_logit_difference"] <= 1e-4
        assert set(packaged["signature"]["score"]["inputs"]) == {"query", "item"}
        assert_answers_well(run, encoder)


@pytest.mark.slow
def test_a_version_that_answers_from_candidates(
    make_run: Callable[..., Run], kept: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight items are answered as a large catalogue is, and as all of them are where all are candidates."""
    monkeypatch.setattr("reshelve.features.candidates._NARROWED", 0)
    run = make_run(**{"release.candidates": 128})
    kept.stages(run, {**LEARNED, "blend": blend, "compress": compress})
    packaged = package(run)
    assert packaged["candidates"] == {
        "recall@10": 1.0, "recall@100": 1.0, "questions": len(CHOSEN), "items": len(TITLES)
    }  # fmt: skip
    assert_answers_well(run, encoder=False)


def days_of_lists(telling: bool, days: int, queries: int = 60) -> list[Lists]:
    """Shortlists of five in which an item is chosen by the encoder's feature, the last one, or by chance."""
    random = np.random.default_rng(5)
    found = []
    for _ in range(days):
        features = random.normal(size=(queries, 5, len(FEATURES) + 1)).astype(np.float32)
        best = features[..., -1].argmax(1) if telling else random.integers(0, 5, queries)
        texts = np.array([f"query {number}" for number in range(queries)])
        found.append(Lists(features, np.eye(5, dtype=np.float32)[best], np.ones(queries, np.float32), texts))
    return found


@pytest.mark.parametrize("days", [1, 6])
def test_an_encoder_stays_where_an_interval_proves_it(days: int) -> None:
    found = compare(days_of_lists(telling=True, days=days, queries=200), seed=1)
    assert found.proves_the_encoder and found.difference.high < 0
    assert found.losses["with_encoder"] < found.losses["memory"]
    for seed in range(3):
        assert not compare(days_of_lists(telling=False, days=days), seed=seed).proves_the_encoder


def test_a_smaller_loss_alone_is_no_proof() -> None:
    assert not BlendComparison({}, Interval(-0.1, -0.2, 0.0), queries=99).proves_the_encoder
    assert not BlendComparison({}, Interval(-0.1, -0.2, -0.1), queries=LEAST_CLUSTERS - 1).proves_the_encoder


@pytest.mark.slow
def test_a_version_that_reads_titles_gives_their_vectors_to_a_search_engine(
    make_run: Callable[..., Run], kept: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(**{"model.head": "titles", "model.vector_size": 64, "compression.steps": ["int8"]})
    kept.stages(run, LEARNED, "titles")
    proof = BlendComparison(
        {"memory": 1.0, "with_encoder": 0.9}, Interval(-0.1, -0.2, -0.01), queries=LEAST_CLUSTERS
    )
    monkeypatch.setattr("reshelve.kinds.search.blend_stage.compare", lambda *_: proof)
    for name, stage in {"blend": blend, "compress": compress}.items():
        run.stage(name).commit(stage(run))
    packaged = package(run)
    assert packaged["max_logit_difference"] <= 1e-4
    version = run.stage("package").directory / "version"
    check_saved_model(version)
    table = pq.read_table(version / "assets.extra" / "vectors.parquet")
    titled = {item for item, title in TITLES.items() if title}
    assert set(table["item_id"].to_pylist()) == titled, "an item without title has no vector"
    trained = run.stage("train").directory / "model.safetensors"
    assert set(table["model"].to_pylist()) == {digest_of_file(trained)}
    vectors = np.array(table["vector"].to_pylist(), np.float32)
    assert vectors.shape == (len(titled), 64)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-4)

    about = json.loads((version / "assets.extra" / "reshelve.json").read_text())
    assert about["encoder"] == encoder_digest(run.stage("train").directory)
    kept_already = TitleCache(run.store, run.ranker.name, run.stage("train").directory)
    monkeypatch.setattr(
        "reshelve.training.title_cache.vectors_of",
        lambda *_: pytest.fail("the night has encoded them already"),
    )
    in_order = [TITLES[item] for item in table["item_id"].to_pylist()]
    np.testing.assert_array_equal(kept_already.vectors(in_order), vectors)

    functions = dict(tf.saved_model.load(str(version)).signatures)
    assert set(functions) == {"serving_default", "logits", "score", "vector"}
    asked = functions["vector"](query=strings(*(title for title in TITLES.values() if title)))[
        "vector"
    ].numpy()
    nearest = (asked @ vectors.T).argmax(axis=1)
    items = table["item_id"].to_pylist()
    assert [items[place] for place in nearest] == [item for item, title in TITLES.items() if title]


@pytest.mark.slow
def test_a_search_engine_gets_the_first_numbers_of_the_vectors_and_the_ranking_all(
    make_run: Callable[..., Run], kept: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"model.head": "titles", "model.vector_size": 96, "model.index_size": 64}
    run = make_run(**sizes, **{"compression.steps": []})
    kept.stages(run, LEARNED, "titles, cut")
    proof = BlendComparison(
        {"memory": 1.0, "with_encoder": 0.9}, Interval(-0.1, -0.2, -0.01), queries=LEAST_CLUSTERS
    )
    monkeypatch.setattr("reshelve.kinds.search.blend_stage.compare", lambda *_: proof)
    for name, stage in {"blend": blend, "compress": compress}.items():
        run.stage(name).commit(stage(run))
    assert package(run)["max_logit_difference"] <= 1e-4, "by vectors of 96, as in torch"
    version = run.stage("package").directory / "version"
    table = pq.read_table(version / "assets.extra" / "vectors.parquet")
    vectors = np.array(table["vector"].to_pylist(), np.float32)
    assert vectors.shape[1] == 64
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    titled = [TITLES[item] for item in table["item_id"].to_pylist()]
    asked = tf.saved_model.load(str(version)).signatures["vector"](query=strings(*titled))["vector"].numpy()
    assert asked.shape[1] == 64
    np.testing.assert_allclose((asked * vectors).sum(axis=1), 1.0, atol=1e-2)


@pytest.fixture
def packaged_run(make_run: Callable[..., Run], kept: Any) -> Run:
    """A run whose stages are done up to package, as the gate finds it."""
    run = make_run()
    kept.stages(run, {**LEARNED, "blend": blend, "compress": compress, "package": package})
    return run


@pytest.mark.slow
def test_the_model_server_scores_the_items_that_a_caller_names(
    packaged_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, name = packaged_run, packaged_run.ranker.name
    run.stage("gate").commit(judged(run, {"verdict": "promote", "reasons": ["measured"]}))
    version = int(publish(run)["version"])
    shutil.copytree(run.stage("package").directory / "version", tmp_path / "models" / str(version))
    (tmp_path / "rankers").mkdir()
    (tmp_path / "rankers" / f"{name}.yaml").write_text(json.dumps(run.ranker.model_dump(mode="json")))
    monkeypatch.setenv("RESHELVE_RANKERS_DIR", str(tmp_path / "rankers"))

    def predicted(*arguments: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "reshelve.cli", "predict", "--ranker", name, "--json", *arguments]
        done = subprocess.run(
            [*command, "--version", str(version)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    with running_model_server({name: tmp_path / "models"}) as addresses:
        monkeypatch.setenv("RESHELVE_MODEL_SERVER", addresses.grpc)
        asked = ["i0", "not here", "i6", "i3"]
        named = predicted("--query", "Wooden  heart", *(word for item in asked for word in ("--item", item)))
        shelf = predicted("--query", "Wooden  heart", "--top", "8")

    assert named["version"] == shelf["version"] == version
    order = [item["item"] for item in named["items"]]
    assert sorted(order) == sorted(asked) and (order[0], order[-1]) == ("i3", "not here")
    whole = {item["item"]: item for item in shelf["items"]}
    assert len(whole) == run.ranker.release.top
    for item in named["items"]:
        if item["item"] in whole:  # named or not, an item has one score and one title
            assert item["score"] == pytest.approx(whole[item["item"]]["score"], abs=1e-6)
            assert item["title"] == whole[item["item"]]["title"] == (TITLES[item["item"]] or item["item"])
    assert named["items"][-1]["score"] == 0, "an item that the version does not know has no chance"


@pytest.mark.slow
def test_quality_is_measured_on_what_would_be_served(
    packaged_run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(PROJECT / "benchmarks"))
    from quality_night import Night, answers

    examples = packaged_run.stage("examples").directory
    queries = read_holdout(examples / "holdout.parquet")
    catalogue = Catalogue.read(examples / "catalogue.parquet")
    found = answers(packaged_run, queries, catalogue, served=False)
    ranked, served = found.ranked, answers(packaged_run, queries, catalogue, served=True)
    assert [items[0] for items in ranked] == [query.relevant[0] for query in queries]
    assert served.ranked == ranked
    np.testing.assert_allclose(served.scores, found.scores, atol=1e-4)

    lists = {"reshelve": ranked, "bm25": ranked}
    night = Night(packaged_run.partition, queries, lists, found.scores, {"train": 1.5}, 900)
    night.write(tmp_path / "night.parquet")
    assert Night.read(tmp_path / "night.parquet") == night


def test_validation_days_without_a_search_are_bad_data(make_run: Callable[..., Run]) -> None:
    run = make_run()
    run.stage("examples").commit(build_examples(run) | {"validation_partitions": ["2010-01-01"]})
    run.stage("train").commit({})
    with pytest.raises(DataError, match="the validation days hold no search"):
        blend(run)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (None, "cannot be read"),
        ("{", "cannot be read"),
        (json.dumps({"encoder": True}), "cannot be read"),
        (json.dumps({"encoder": False, "features": FEATURES[1:]}), "made by other code"),
        (json.dumps({"encoder": False, "features": [*FEATURES[1:], FEATURES[0]]}), "made by other code"),
    ],
    ids=["missing", "no JSON", "no features", "one less", "another order"],
)
def test_a_blend_of_other_code_is_refused(tmp_path: Path, body: str | None, expected: str) -> None:
    if body is not None:
        (tmp_path / "blend.json").write_text(body)
    with pytest.raises(DataError, match=rf"blend\.json: {expected}"):
        read_blend(tmp_path)
