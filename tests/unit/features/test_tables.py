"""What a shop remembers at one instant, counted by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from reshelve.features.evidence import SearchEvidence
from reshelve.features.postings import Postings
from reshelve.features.tables import GRAM_PRIOR, HALF_LIVES, PRIOR_AGE, Corpus, SearchTables

pytestmark = pytest.mark.slow

TITLES = ["red cup", "blue mug", ""]
# Yesterday, the day before and four days before that: three ages under one key, and another key.
ROWS = [
    (1, 0, 1.0, "red"),
    (2, 0, 2.0, "Red"),
    (5, 0, 1.0, "red"),
    (1, 1, 1.0, "red"),
    (1, 1, 1.0, "blue mugs"),
]
AGES = np.array([0, 1, 4])

CorpusOf = Callable[..., Corpus]


def differences(one: SearchTables, other: SearchTables) -> list[str]:
    """Names of what is not the same to the last bit, in the order of the fields."""
    found = []
    for field in fields(SearchTables):
        left, right = getattr(one, field.name), getattr(other, field.name)
        if isinstance(left, Postings):
            same = left.width == right.width and all(
                np.array_equal(getattr(left, name), getattr(right, name))
                for name in ("starts", "columns", "weights")
            )
        else:
            same = np.array_equal(left, right) if isinstance(left, np.ndarray) else left == right
        found += [] if same else [field.name]
    return found


def posting(postings: Postings, row: int) -> dict[int, np.ndarray]:
    """Column → weights."""
    places = range(postings.starts[row], postings.starts[row + 1])
    return {int(postings.columns[place]): postings.weights[place] for place in places}


PAST = [
    (ago, item, 1.0 + item % 2, query)
    for ago, item, query in zip(
        [1, 1, 2, 3, 3, 7, 12, 30], [0, 1, 0, 1, 2, 2, 0, 1],
        ["redcup", "blue mug", "red", "zebra 3", "?!", "red cups", "mug", "blue mug"], strict=True,
    )
]  # fmt: skip
ASKED = ["red cup", "redcup", "zebra III", "blu mug", "nobody asked this", "", "?!"]
FUTURE = st.lists(
    st.tuples(
        st.integers(-3, 0),
        st.integers(0, 2),
        st.floats(0.5, 100, width=32),
        st.one_of(
            # Other spellings of known keys: "red cup" of "redcup", …
            st.sampled_from(
                ["red cup", "Red-Cup", "bluemug", "Blue MUGS", "aa", "zebra III", "z e b r a 3", "!"]
            ),
            st.text(max_size=12),
        ),
    ),
    max_size=8,
)


@given(future=FUTURE, first=st.booleans())
@settings(deadline=None, max_examples=30)
def test_no_later_event_changes_a_bit(
    corpus_of: CorpusOf, today: date, future: list[tuple], first: bool
) -> None:
    past = corpus_of(TITLES, *PAST).tables(today)
    with_future = corpus_of(TITLES, *(future + PAST if first else PAST + future)).tables(today)
    assert differences(past, with_future) == []
    features = [SearchEvidence(tables).features(tf.constant(ASKED)).numpy() for tables in (past, with_future)]
    assert np.array_equal(*features)


def test_an_earlier_event_does(corpus_of: CorpusOf, today: date) -> None:
    """The comparison above can see."""
    past = corpus_of(TITLES, *PAST).tables(today)
    more = corpus_of(TITLES, *PAST, (1, 0, 1.0, "violet")).tables(today)
    assert {"keys", "grams", "chosen", "alike", "says", "gram", "item", "popularity"} <= set(
        differences(past, more)
    )


def test_the_same_day_is_later(corpus_of: CorpusOf, today: date) -> None:
    rows = [(0, 0, 1.0, "red"), (1, 1, 1.0, "blue")]
    corpus = corpus_of(TITLES, *rows)
    assert corpus.tables(today).keys == ["blue"]
    assert corpus.tables(today + timedelta(days=1)).keys == ["blue", "red"]


def test_what_was_chosen_decays(corpus_of: CorpusOf, today: date) -> None:
    tables = corpus_of(TITLES, *ROWS).tables(today)
    assert (np.inf, 1.0, 4.0, 16.0) == HALF_LIVES
    assert tables.keys == ["bluemug", "red"], "spellings are one key"
    red, blue = posting(tables.chosen, 1), posting(tables.chosen, 0)
    weights = np.array([1.0, 2.0, 1.0])
    expected = [4.0, 1 + 2 / 2 + 1 / 16, *((weights * 0.5 ** (AGES / days)).sum() for days in (4, 16))]
    assert red.keys() == {0, 1} and blue.keys() == {1}
    assert red[0] == pytest.approx(expected, rel=1e-6)
    assert red[1].tolist() == blue[1].tolist() == [1, 1, 1, 1]


def test_popularity(corpus_of: CorpusOf, today: date) -> None:
    tables = corpus_of(TITLES, *ROWS).tables(today)
    ever = np.array([4.5, 2.5, 0.5]) / 7.5  # half an event for everyone
    recent = np.array([1 + 2 * 0.5**0.25 + 0.5, 2, 0])
    lately = (recent + 20 * ever) / (recent.sum() + 20)
    assert np.exp(tables.item[:, 0]) == pytest.approx(ever, rel=1e-5)
    assert np.exp(tables.item[:, PRIOR_AGE]) == pytest.approx(lately, rel=1e-5)
    assert tables.popularity == pytest.approx(lately, rel=1e-5)
    assert np.exp(tables.item[:, :4]).sum(0) == pytest.approx([1, 1, 1, 1], rel=1e-5)
    age, never, untitled = tables.item[:, 4:].T
    assert age == pytest.approx(np.log1p([5, 1, 0]))
    assert (never.tolist(), untitled.tolist()) == ([0, 0, 1], [0, 0, 1])


def test_what_one_word_says(corpus_of: CorpusOf, today: date) -> None:
    tables = corpus_of(TITLES, *ROWS).tables(today)
    word = tables.grams.index("w:red")
    counts = np.array([(np.array([1.0, 2.0, 1.0]) * 0.5 ** (AGES / 16)).sum(), 1.0, 0.0])
    prior, total = tables.popularity.astype(float), counts.sum()
    likely = (counts + GRAM_PRIOR * prior) / (total + GRAM_PRIOR)
    divergence = (likely * np.log(likely / prior)).sum()
    share = GRAM_PRIOR / (total + GRAM_PRIOR)

    says = posting(tables.says, word)
    _, constant, weight, popular, asked, is_word = tables.gram[word]
    lifts = [says[item][0] + constant if item in says else constant for item in range(3)]
    assert lifts == pytest.approx(np.log(likely / prior), rel=1e-4)
    assert says.keys() == {0, 1}, "where nothing was chosen there is nothing to keep"
    assert weight == pytest.approx(divergence, rel=1e-3)
    assert popular == pytest.approx(divergence * share, rel=1e-3)
    mixture = [
        says[item][1] + popular * prior[item] if item in says else popular * prior[item] for item in range(3)
    ]
    assert mixture == pytest.approx(divergence * likely, rel=1e-3)
    assert (asked, is_word) == (1, 1)
    in_title_alone = tables.gram[tables.grams.index("w:cup")]
    assert in_title_alone[1:5].tolist() == [0, 0, 0, 0], "nobody asked for it: it says nothing"


def test_a_rare_gram_weighs_more(corpus_of: CorpusOf, today: date) -> None:
    tables = corpus_of(TITLES, *ROWS).tables(today)
    # Two keys and three titles; red is in one key and one title, mug in one of each, cup in one title.
    idf = {gram: tables.gram[tables.grams.index(gram), 0] for gram in ("w:red", "w:mug", "w:cup")}
    assert idf == pytest.approx(
        {"w:red": np.log1p(5 / 3), "w:mug": np.log1p(5 / 3), "w:cup": np.log1p(5 / 2)}
    )
    assert tables.idf_unseen == pytest.approx(np.log1p(5))


def test_an_untitled_item_has_no_grams(corpus_of: CorpusOf, today: date) -> None:
    tables = corpus_of(TITLES, *ROWS).tables(today)
    assert np.flatnonzero(np.diff(tables.titles.starts)).tolist() == [0, 1]


def test_the_most_asked_are_kept(corpus_of: CorpusOf, today: date, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(40, 0, 5.0, "often"), (1, 0, 1.0, "once"), (1, 1, 2.0, "twice"), (2, 1, 1.0, "twice")]
    monkeypatch.setattr("reshelve.features.tables.MOST_KEYS", 2)
    tables = corpus_of(TITLES, *rows).tables(today)
    assert tables.keys == ["often", "twice"]
    assert len(tables.chosen.starts) == 3
    assert "w:once" not in tables.grams
    everything = SearchEvidence(tables).features(tf.constant(["once", "twice"])).numpy()
    assert np.isfinite(everything).all()


@pytest.mark.parametrize("rows", [ROWS, []], ids=["searches", "none"])
def test_what_is_written_is_read_again(corpus_of: CorpusOf, today: date, tmp_path: Path, rows: list) -> None:
    tables = corpus_of(TITLES, *rows).tables(today)
    tables.write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"memory.safetensors", "memory.parquet"}
    assert differences(tables, SearchTables.read(tmp_path)) in ([], ["idf_unseen"])  # float32 on disk
