"""The memory of a version with another catalogue, beside the one that a night would make of it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import numpy as np
import pytest

from reshelve.features.evidence import FEATURES, SearchEvidence
from reshelve.features.postings import Postings
from reshelve.features.retitled import retitled
from reshelve.features.tables import Corpus, SearchTables

TITLES = ["red paper lantern", "blue mug", "garden gnome", "", "wooden heart", "small plate"]
ROWS = (
    (1, 0, 2.0, "red lantern"), (2, 0, 1.0, "lanterns"), (3, 1, 1.0, "blue mug"), (9, 1, 1.0, "thing for tea"),
    (1, 3, 1.0, "best"), (5, 4, 1.0, "wooden heart"), (6, 2, 1.0, "gnome"), (6, 2, 1.0, "lantern"),
)  # fmt: skip


@pytest.fixture
def corpus(corpus_of: Callable[..., Corpus]) -> Callable[..., Corpus]:
    return lambda titles: corpus_of(titles, *ROWS)


def assert_same(one: SearchTables, other: SearchTables, exact: bool = True) -> None:
    assert (one.keys, one.grams) == (other.keys, other.grams)
    assert one.idf_unseen == pytest.approx(other.idf_unseen)
    for name in ("chosen", "alike", "titles", "says"):
        a, b = getattr(one, name), getattr(other, name)
        assert a.width == b.width
        np.testing.assert_array_equal(a.starts, b.starts, err_msg=name)
        np.testing.assert_array_equal(a.columns, b.columns, err_msg=name)
        np.testing.assert_allclose(a.weights, b.weights, rtol=1e-5 if exact else 0.2, atol=1e-6, err_msg=name)
    for name in ("gram", "title", "item", "popularity"):
        a, b = getattr(one, name), getattr(other, name)
        np.testing.assert_allclose(
            a, b, rtol=1e-5 if exact else 0.2, atol=1e-5 if exact else 0.2, err_msg=name
        )


def test_the_same_catalogue_gives_the_same_tables(corpus: Callable[..., Corpus], today: date) -> None:
    tables = corpus(TITLES).tables(today)
    assert_same(retitled(tables, np.arange(len(TITLES)), TITLES), tables)


def test_in_another_order_items_take_along_what_was_chosen(
    corpus: Callable[..., Corpus], today: date
) -> None:
    tables = corpus(TITLES).tables(today)
    were = np.array([3, 0, 5, 2, 4, 1])
    moved = retitled(tables, were, [TITLES[place] for place in were])
    asked = ["lantern", "blue mug", "best", "small plate", "lanten", ""]
    before, after = (SearchEvidence(each).features(asked).numpy() for each in (tables, moved))
    np.testing.assert_allclose(after, before[:, were], rtol=1e-4, atol=1e-5)


def test_new_titles_are_cut_weighed_and_found_as_a_night_would(
    corpus: Callable[..., Corpus], today: date
) -> None:
    """All but the popularity, whose shares a night would spread over more items."""
    titles = [*TITLES[:5], "tiny plate", "café étagère", "blue lantern", ""]  # one has another title
    were = np.array([0, 1, 2, 3, 4, 5, -1, -1, -1])
    found = retitled(corpus(TITLES).tables(today), were, titles)
    assert_same(found, corpus(titles).tables(today), exact=False)
    expected = corpus(titles).tables(today)
    for name in ("titles", "alike"):
        np.testing.assert_allclose(getattr(found, name).weights, getattr(expected, name).weights, atol=1e-6)
    np.testing.assert_allclose(found.title, expected.title, rtol=1e-5)
    np.testing.assert_allclose(found.gram[:, 0], expected.gram[:, 0], rtol=1e-6)
    assert not any("small" in gram for gram in found.grams), "what only a title of before had is gone"
    features = SearchEvidence(found).features(["cafe etagere"]).numpy()[0]
    assert features[:, FEATURES.index("title_cosine")].argmax() == 6


def test_what_is_removed_is_in_no_table(corpus: Callable[..., Corpus], today: date) -> None:
    were = np.array([0, 2, 3, 4, 5])
    found = retitled(corpus(TITLES).tables(today), were, [TITLES[place] for place in were])
    for name in ("chosen", "says"):
        assert getattr(found, name).width == 5 and getattr(found, name).columns.max() < 5
    assert found.titles.starts.size == 6
    features = SearchEvidence(found).features(["blue mug"]).numpy()
    assert np.isfinite(features).all() and features.shape[1] == 5


def test_postings_move_to_other_rows_and_columns() -> None:
    table = Postings(
        np.array([0, 2, 3], np.int32),
        np.array([0, 2, 1], np.int32),
        np.array([[1.0], [2.0], [3.0]], np.float32),
        3,
    )
    moved = table.moved(np.array([2, 0]), np.array([1, -1, 0]), 3, 2)
    assert moved.starts.tolist() == [0, 0, 0, 2] and moved.columns.tolist() == [0, 1]
    assert moved.weights.ravel().tolist() == [2.0, 1.0] and moved.width == 2
