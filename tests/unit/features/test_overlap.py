"""How a query and a title overlap, against values worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from reshelve.features.columns import TEXT
from reshelve.features.overlap import Overlap, Rarity

pytestmark = pytest.mark.slow  # computes in TensorFlow

# `lamp` is in three titles of four, `red` in two, all else in one.
TITLES = ["red lamp", "blue lamp", "Red desk lamps", "cup"]


@pytest.fixture(scope="module")
def rarity() -> Rarity:
    return Rarity.of(TITLES)


def columns(rarity: Rarity, query: str, title: str) -> dict[str, float]:
    found = Overlap(rarity).features(tf.constant([query]), tf.constant([title])).numpy()[0]
    return dict(zip(TEXT, found.tolist(), strict=True))


def test_words_count_by_how_rare_they_are_in_titles(rarity: Rarity) -> None:
    found = columns(rarity, "red lamps cup", "Desk lamp, red")
    red, lamp, rare = np.log1p(4 / 3), np.log1p(4 / 4), np.log1p(4 / 2)
    assert found["words_held"] == pytest.approx(2 / 3)
    assert found["words_held_idf"] == pytest.approx((red + lamp) / (red + lamp + rare), rel=1e-5)
    assert found["idf_most"] == pytest.approx(rare, rel=1e-5) and found["idf_least"] == pytest.approx(
        lamp, rel=1e-5
    )
    assert (found["held_first"], found["held_last"], found["rarest_held"]) == (1, 0, 0)
    assert (found["query_words"], found["title_words"], found["query_letters"]) == (3, 3, 10)
    assert found["first_place"] == pytest.approx(1 / 3) and found["last_place"] == pytest.approx(2 / 3)


def test_a_misspelt_word_is_covered_in_part(rarity: Rarity) -> None:
    found = columns(rarity, "lanp", "red lamp")
    assert found["words_held"] == 0 and 0 < found["covered"] < 1
    assert columns(rarity, "lamp", "red lamp")["covered"] == 1
    assert columns(rarity, "xyz", "red lamp")["covered"] == 0


def test_neighbours_and_numbers(rarity: Rarity) -> None:
    assert columns(rarity, "desk lamp", "red desk lamp")["neighbours_held"] == 1
    assert columns(rarity, "desk lamp", "lamp for a desk")["neighbours_held"] == 0
    found = columns(rarity, "12 volt 5 cup", "cup 12v")
    assert (found["numbers"], found["numbers_held"]) == (2, 0.5)


def test_the_last_word_of_one_title_is_no_neighbour_of_the_next_ones_first(rarity: Rarity) -> None:
    found = (
        Overlap(rarity).features(tf.constant(["lamp blue"]), tf.constant(["red lamp", "blue lamp"])).numpy()
    )
    assert found[:, TEXT.index("neighbours_held")].tolist() == [0, 0]


@settings(max_examples=30, deadline=None)
@given(queries=st.lists(st.text(max_size=30), min_size=1, max_size=4), title=st.text(max_size=40))
def test_every_text_has_finite_features_that_do_not_depend_on_its_neighbours(
    queries: list[str], title: str
) -> None:
    overlap = Overlap(Rarity.of(TITLES))
    queries = [query.encode("utf-8", "replace").decode() for query in queries]
    title = title.encode("utf-8", "replace").decode()
    together = overlap.features(tf.constant(queries), tf.constant([title] * len(queries))).numpy()
    alone = [overlap.features(tf.constant([query]), tf.constant([title])).numpy()[0] for query in queries]
    assert np.isfinite(together).all()
    np.testing.assert_allclose(together, np.stack(alone), rtol=1e-5, atol=1e-6)


def test_one_query_is_compared_with_every_title(rarity: Rarity) -> None:
    overlap, titles = Overlap(rarity), tf.constant([*TITLES, ""])
    one = overlap.features(tf.constant(["red lamp"]), titles)
    np.testing.assert_array_equal(one, overlap.features(tf.constant(["red lamp"] * 5), titles))


def test_what_is_written_is_read_back(rarity: Rarity, tmp_path: Path) -> None:
    rarity.write(tmp_path / "overlap.safetensors")
    again = Rarity.read(tmp_path / "overlap.safetensors")
    np.testing.assert_array_equal(again.keys, rarity.keys)
    assert columns(again, "red cup", "red lamp") == columns(rarity, "red cup", "red lamp")
