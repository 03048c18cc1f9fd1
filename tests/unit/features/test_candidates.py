"""Candidates of a large catalogue, and what is known of them, against the whole catalogue."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from reshelve.export.operations import check_operations
from reshelve.features.blend import HIDDEN, Blend
from reshelve.features.candidates import NEVER, CandidateEvidence
from reshelve.features.evidence import FEATURES, NamedEvidence, SearchEvidence
from reshelve.features.tables import Corpus, SearchTables
from reshelve.kinds.search.candidate_recall import candidate_recall
from reshelve.kinds.search.ranking import OfCandidates, WholeCatalogue

pytestmark = pytest.mark.slow

CorpusOf = Callable[..., Corpus]

THINGS = ["lantern", "gnome", "mug", "candle", "plate", "heart", "star", "kettle", "basket", "clock"]
KINDS = ["red", "small", "garden", "paper", "metal", "vintage", "blue", "wooden", "glass", "tiny"]
MAKERS = ["acme", "böhm", "山田", "o'neill", "x200", "linen"]
TITLES = [f"{kind} {thing} {maker}" for thing in THINGS for kind in KINDS for maker in MAKERS] + ["", ""]
ROWS = [
    (1 + number % 9, place, 1.0 + number % 3, TITLES[place].rsplit(" ", 1)[0])
    for number, place in enumerate(range(0, 600, 7))
] + [(2, 600, 5.0, "gift"), (1, 33, 2.0, "gift"), (3, 90, 1.0, "lanten"), (4, 5, 1.0, "!?")]  # fmt: skip
QUERIES = ["red lantern", "gift", "lanternn", "böhm mug", "who knows", "", "!?", "山田", "red", "x" * 500]


@pytest.fixture
def tables(corpus_of: CorpusOf, today: date) -> SearchTables:
    return corpus_of(TITLES, *ROWS).tables(today)


@pytest.mark.parametrize(
    ("titles", "rows"),
    [
        pytest.param(TITLES, ROWS, id="a shop"),
        pytest.param(TITLES[:30], [], id="nothing searched yet"),
        pytest.param(["", "", ""], ROWS[:0], id="no titles"),
        pytest.param(["", "", ""], [(1, 0, 1.0, "!?")], id="no letter was ever asked"),
    ],
)
def test_a_named_item_is_known_by_the_same_features_as_in_the_whole_catalogue(
    corpus_of: CorpusOf, today: date, titles: list[str], rows: list
) -> None:
    tables = corpus_of(titles, *rows).tables(today)
    whole, named = SearchEvidence(tables), NamedEvidence(tables)
    expected = whole.features(tf.constant(QUERIES)).numpy()
    places = np.random.default_rng(3).integers(0, len(titles), (len(QUERIES), 17)).astype(np.int32)
    function = tf.function(
        lambda queries, places: named.features(*named.read(queries), places),
        input_signature=[tf.TensorSpec([None], tf.string), tf.TensorSpec([None, None], tf.int32)],
        autograph=False,
    )
    found = function(tf.constant(QUERIES), tf.constant(places)).numpy()
    wanted = np.take_along_axis(expected, places[..., None], axis=1)
    for number, name in enumerate(FEATURES):
        assert np.allclose(found[..., number], wanted[..., number], atol=2e-4, rtol=1e-4), name


def test_each_candidate_is_there_once_and_the_sample_stands_for_the_rest(tables: SearchTables) -> None:
    evidence = CandidateEvidence(tables, most=64)
    candidates, features = evidence.features(tf.constant(QUERIES))
    places, stands_for = candidates.places.numpy(), candidates.stands_for.numpy()
    assert features.shape == (*places.shape, len(FEATURES)) and np.isfinite(features).all()
    assert places.shape[1] <= 64 and (places >= 0).all() and (places < len(TITLES)).all()
    for row, weight in zip(places, stands_for, strict=True):
        valid = row[weight > NEVER / 2]
        assert len(set(valid)) == len(valid)
        assert np.exp(weight[weight > NEVER / 2]).sum() == pytest.approx(len(TITLES), rel=1e-4)


@pytest.mark.parametrize("query", ["red lantern", "red gardn", "tiny wooden clock linen"])
def test_what_one_source_lacks_is_room_for_the_others(tables: SearchTables, query: str) -> None:
    candidates, _ = CandidateEvidence(tables, most=64).features(tf.constant([query]))
    assert np.count_nonzero(candidates.stands_for.numpy() > NEVER / 2) >= 60


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        pytest.param("gift", [600, 33], id="chosen under the very query"),
        pytest.param("lanten", [90], id="chosen under it once"),
        pytest.param("lantenn", [90], id="chosen under one spelled alike"),
        pytest.param("böhm tiny clock", [TITLES.index("tiny clock böhm")], id="its title holds the words"),
        pytest.param("KETTLE, glass", [TITLES.index("glass kettle acme")], id="in another order"),
        pytest.param("nobody ever", [600], id="popular"),
    ],
)
def test_what_answers_a_query_is_among_its_candidates(
    tables: SearchTables, query: str, wanted: list[int]
) -> None:
    candidates, _ = CandidateEvidence(tables, most=96).features(tf.constant([query]))
    assert set(wanted) <= set(candidates.places.numpy()[0].tolist())


def drawn_blend(seed: int = 0) -> Blend:
    """Any network: what an item scores does not depend on whether all are looked at."""
    random, width = np.random.default_rng(seed), len(FEATURES)
    ones, zeros = np.ones(width, np.float32), np.zeros(width, np.float32)
    linear = random.normal(0, 0.1, width).astype(np.float32)
    linear[[FEATURES.index(name) for name in ("bm25", "chosen_4d", "alike3_4d", "words_covered")]] += 0.5
    hidden = random.normal(0, 0.1, (width, HIDDEN)).astype(np.float32)
    return Blend(zeros, ones, linear, hidden, np.zeros(HIDDEN, np.float32), np.ones(HIDDEN, np.float32) * 0.1)


@pytest.mark.parametrize("most", [160, 320])
def test_candidates_are_scored_as_in_the_whole_catalogue(tables: SearchTables, most: int) -> None:
    whole = WholeCatalogue(tables, drawn_blend(), None)
    few = OfCandidates(tables, drawn_blend(), None, most, least=20)
    queries = tf.constant(QUERIES)
    expected, found = whole.ranked(queries), few.ranked(queries)
    valid = found.stands_for.numpy() > NEVER / 2
    wanted = np.take_along_axis(expected.logits.numpy(), found.places.numpy(), axis=1)
    assert np.allclose(found.logits.numpy()[valid], wanted[valid], atol=2e-3)
    # A share of the whole catalogue, of which most was not looked at.
    assert np.abs(found.total - expected.total).mean() < 40 / most
    named = tf.constant(np.tile(np.arange(0, 600, 50, dtype=np.int32), (len(QUERIES), 1)))
    assert np.allclose(few.with_named(queries, named)[1], whole.with_named(queries, named)[1], atol=2e-3)


def test_the_recall_of_candidates_is_that_of_the_exhaustive_answer(tables: SearchTables) -> None:
    whole = WholeCatalogue(tables, drawn_blend(), None)
    few = OfCandidates(tables, drawn_blend(), None, 160, least=20)
    found = candidate_recall(
        QUERIES + QUERIES,
        lambda query: few.ranked(query).places,
        lambda *asked: few.with_named(*asked)[1],
        602,
    )
    assert found["questions"] == len(QUERIES) and found["items"] == 602
    shares = []
    for query in QUERIES:
        best = np.argsort(-whole.ranked(tf.constant([query])).logits.numpy()[0], kind="stable")[:10]
        shares.append(np.isin(best, few.ranked(tf.constant([query])).places.numpy()[0]).mean())
    assert found["recall@10"] == pytest.approx(np.mean(shares), abs=0.02)
    assert 1.0 >= found["recall@10"] > found["recall@100"] > 0


def test_a_saved_graph_of_candidates_only_computes_and_answers_the_same(
    tables: SearchTables, tmp_path: Path
) -> None:
    few = OfCandidates(tables, drawn_blend(), None, 160, least=20)
    few.ask = tf.function(
        lambda queries: dict(zip(("places", "logits"), few.ranked(queries)[:2], strict=True)),
        input_signature=[tf.TensorSpec([None], tf.string)],
        autograph=False,
    )
    tf.saved_model.save(few, str(tmp_path), signatures={"serving_default": few.ask})
    # One query's titles after the other's.
    assert {"RaggedRange", "Unique", "While"} <= set(check_operations(tmp_path))
    asked = tf.saved_model.load(str(tmp_path)).signatures["serving_default"]
    for queries in (QUERIES, QUERIES[:1], []):
        found = asked(queries=tf.constant(queries, tf.string))
        expected = few.ranked(tf.constant(queries, tf.string))
        assert np.array_equal(found["places"], expected.places)
        assert np.allclose(found["logits"], expected.logits, atol=1e-4)
