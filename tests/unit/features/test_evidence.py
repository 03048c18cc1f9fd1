"""The features of queries against a small memory."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import numpy as np
import pytest
import tensorflow as tf

from reshelve.features.evidence import FEATURES, SearchEvidence
from reshelve.features.tables import Corpus

pytestmark = pytest.mark.slow

TITLES = ["red lantern", "garden gnome", "", "mama's cup"]
ROWS = [
    (1, 0, 1.0, "lantern"), (2, 0, 1.0, "red lantern"), (1, 1, 3.0, "garden"), (3, 1, 1.0, "gnome"),
    (4, 3, 1.0, "mama"), (2, 1, 1.0, "!?"),
]  # fmt: skip
QUERIES = ["lantern", "lanternn", "who knows", "", "  ", "!?", "🎉", "mama", "日本", "x" * 1000]

CorpusOf = Callable[..., Corpus]


@pytest.fixture
def evidence(corpus_of: CorpusOf, today: date) -> SearchEvidence:
    return SearchEvidence(corpus_of(TITLES, *ROWS).tables(today))


def asked(evidence: SearchEvidence, *queries: str) -> np.ndarray:
    return evidence.features(tf.constant(list(queries))).numpy()


def feature(evidence: SearchEvidence, name: str, query: str) -> np.ndarray:
    """One feature of every item for one query: [C]."""
    return asked(evidence, query)[0, :, FEATURES.index(name)]


@pytest.mark.parametrize(
    ("titles", "rows"),
    [
        pytest.param(TITLES, ROWS, id="a shop"),
        pytest.param(TITLES, [], id="nothing searched yet"),
        pytest.param(["", "", ""], ROWS[:4], id="no titles"),
        pytest.param(["", ""], [], id="nothing at all"),
        pytest.param(["one thing"], [(1, 0, 1.0, "one thing")], id="one item"),
        pytest.param(TITLES, [(1, 0, 1.0, "!?")], id="no letter was ever asked"),
    ],
)
def test_features_are_numbers_whatever_is_asked_of_whatever_is_known(
    corpus_of: CorpusOf, today: date, titles: list[str], rows: list
) -> None:
    evidence = SearchEvidence(corpus_of(titles, *rows).tables(today))
    found = asked(evidence, *QUERIES)
    assert found.shape == (len(QUERIES), len(titles), len(FEATURES)) and found.dtype == np.float32
    assert np.isfinite(found).all()
    graph = tf.function(
        evidence.features, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False
    )
    assert np.allclose(graph(tf.constant(QUERIES)), found, atol=1e-5)


def test_each_feature_has_a_name_of_its_own() -> None:
    assert len(set(FEATURES)) == len(FEATURES)


def test_a_batch_of_one_is_answered_as_a_batch_of_many(evidence: SearchEvidence) -> None:
    together = asked(evidence, *QUERIES, *QUERIES)
    for place, query in enumerate(QUERIES):
        alone = asked(evidence, query)[0]
        assert np.allclose(alone, together[place], atol=1e-5), query
        assert np.allclose(alone, together[place + len(QUERIES)], atol=1e-5), query


def test_what_was_chosen_under_the_very_query(corpus_of: CorpusOf, today: date) -> None:
    # No n-gram is in both keys, so that each is alone with itself.
    rows = [(1, 0, 1.0, "red"), (5, 1, 1.0, "red"), (1, 2, 1.0, "blum")]
    tables = corpus_of(["a", "b", "c"], *rows).tables(today)
    evidence = SearchEvidence(tables)
    counts = {"ever": [1, 1, 0], "1d": [1, 1 / 16, 0], "4d": [1, 1 / 2, 0], "16d": [1, 0.5**0.25, 0]}
    prior = tables.popularity.astype(float)

    def said(age: str) -> np.ndarray:
        return (np.array(counts[age]) + prior) / (sum(counts[age]) + 1)

    for age, chosen in counts.items():
        for power in ("3", "8"):
            assert np.exp(feature(evidence, f"alike{power}_{age}", "Red")) == pytest.approx(
                said(age), rel=1e-4
            )
        expected = (np.array(chosen) + 3 * said("4d")) / (sum(chosen) + 3)
        assert np.exp(feature(evidence, f"chosen_{age}", "Red")) == pytest.approx(expected, rel=1e-4)
        assert feature(evidence, f"query_count_{age}", "Red") == pytest.approx(np.log1p([sum(chosen)] * 3))
    assert feature(evidence, "chosen_count", "Red") == pytest.approx(np.log1p([1, 1, 0]))
    assert feature(evidence, "query_alike", "Red") == pytest.approx([1] * 3, abs=1e-5)
    entropy = -(said("4d") * np.log(said("4d"))).sum()
    assert feature(evidence, "query_entropy", "Red") == pytest.approx([entropy] * 3, rel=1e-4)
    assert feature(evidence, "query_length", "Red") == pytest.approx([np.log(4)] * 3)
    assert feature(evidence, "query_words", "Red 2!") == pytest.approx([np.log(3)] * 3)


def test_an_unknown_query_is_answered_by_popularity(evidence: SearchEvidence) -> None:
    popularity = feature(evidence, "popularity_4d", "zzzzqq")
    for name in ("chosen_4d", "alike3_4d", "alike8_4d"):
        assert feature(evidence, name, "zzzzqq") == pytest.approx(popularity, abs=1e-4), name
    for name in (
        "title_cosine",
        "title_contains",
        "bm25",
        "words_covered",
        "chosen_count",
        "query_count_ever",
    ):
        assert feature(evidence, name, "zzzzqq").tolist() == [0] * 4, name


@pytest.mark.parametrize("name", ["alike3_4d", "alike8_16d", "chosen_4d", "grams_say", "grams_mixture"])
def test_a_misspelt_query_finds_its_neighbour(evidence: SearchEvidence, name: str) -> None:
    assert feature(evidence, "popularity_4d", "lanternn").argmax() == 1
    assert feature(evidence, "query_count_ever", "lanternn").tolist() == [0] * 4, "never asked like that"
    more_than_popularity = feature(evidence, name, "lanternn") - feature(evidence, name, "zzzzqq")
    assert more_than_popularity.argmax() == 0 and more_than_popularity[0] > 1e-3


def test_spelling_that_is_far_off_says_nothing(evidence: SearchEvidence) -> None:
    """`larder` shares a few n-grams with what was asked."""
    assert 0 < feature(evidence, "query_alike", "larder")[0] < 0.25
    assert feature(evidence, "alike3_4d", "larder") == pytest.approx(
        feature(evidence, "popularity_4d", "larder"), abs=1e-4
    )


@pytest.mark.parametrize("title", ["mama", "ananas banana", "aaaaaa", "ha ha ha"])
def test_an_ngram_counts_once_however_often_it_is_typed(corpus_of: CorpusOf, today: date, title: str) -> None:
    tables = corpus_of([title, "other thing"], (1, 0, 1.0, title), (2, 1, 1.0, "other")).tables(today)
    evidence = SearchEvidence(tables)
    for name in ("title_cosine", "title_contains", "words_covered", "query_alike"):
        assert feature(evidence, name, title)[0] == pytest.approx(1, abs=1e-5), name


def test_the_title_features(evidence: SearchEvidence, corpus_of: CorpusOf, today: date) -> None:
    tables = corpus_of(TITLES, *ROWS).tables(today)
    idf = {gram: tables.gram[place, 0] for place, gram in enumerate(tables.grams)}
    # Two words; the titles have 2, 2, none and 2: of average length.
    assert feature(evidence, "bm25", "garden lantern") == pytest.approx(
        [idf["w:lantern"], idf["w:garden"], 0, 0], rel=1e-5
    )
    whole = idf["w:garden"] + tables.idf_unseen
    assert feature(evidence, "words_covered", "garden zzz") == pytest.approx(
        [0, idf["w:garden"] / whole, 0, 0], rel=1e-5
    )
    parts = {"^lantern$"[a : a + size] for size in (2, 3, 4, 5) for a in range(10 - size)} | {"w:lantern"}
    inside = {part for part in parts if part.removeprefix("w:") in "^redlantern$"}
    assert parts - inside == {part for part in parts if part.startswith("^")}
    contained = sum(idf[part] for part in inside) / sum(idf[part] for part in parts)
    assert feature(evidence, "title_contains", "lantern")[0] == pytest.approx(contained, rel=1e-5)
    assert feature(evidence, "untitled", "lantern").tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize("query", ["", "!?", "lantern"])
def test_no_query_is_like_an_untitled_item(evidence: SearchEvidence, query: str) -> None:
    for name in ("title_cosine", "title_contains", "bm25", "words_covered"):
        assert feature(evidence, name, query)[2] == 0, name
