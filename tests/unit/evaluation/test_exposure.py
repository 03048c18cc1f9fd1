from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reshelve.evaluation.exposure import Exposure, coverage, exposure, exposures

SECOND, THIRD = 1 / math.log2(3), 1 / 2  # what a place is worth; the first is 1


def test_the_share_of_a_group_by_hand():
    assert exposure([["a", "b", "c"]], [1.0], {"b"}, 3) == pytest.approx(SECOND / (1 + SECOND + THIRD))
    assert exposure([["a", "b", "c"]], [1.0], {"c"}, 2) == 0
    weighted = exposure([["a", "b"], ["b"]], [1.0, 3.0], {"b"}, 2)
    assert weighted == pytest.approx((SECOND + 3) / (1 + SECOND + 3))


def test_coverage_counts_each_item_of_the_catalogue_once():
    assert coverage([["a", "b"], ["b", "x"]], ["a", "b", "c", "d"], 2) == 1 / 2
    assert coverage([["a", "b"], ["b", "a"]], ["a", "b", "c", "d"], 1) == 1 / 2


def test_nothing_shown_is_no_exposure():
    assert exposure([[]], [1.0], {"a"}, 5) is None
    assert coverage([], [], 5) is None


def test_all_of_it_for_one_ranker():
    found = exposures([["a", "b"]], [1.0], new={"b"}, rare={"a", "b"}, catalogue=["a", "b", "c"], k=2)
    assert found == Exposure(pytest.approx(SECOND / (1 + SECOND)), 1.0, pytest.approx(2 / 3))


LISTS = st.lists(st.tuples(st.permutations("abcdef"), st.floats(0.1, 5)), min_size=1, max_size=6)


@given(LISTS, st.sets(st.sampled_from("abcdef")), st.integers(1, 8), st.randoms())
def test_a_group_and_the_others_share_the_whole_shelf(lists, group, k, random):
    ranked, weights = zip(*lists, strict=True)
    held = exposure(ranked, weights, group, k)
    assert 0 <= held <= 1 + 1e-12
    assert held + exposure(ranked, weights, set("abcdef") - group, k) == pytest.approx(1)
    shuffled, shuffled_weights = zip(*random.sample(lists, len(lists)), strict=True)
    assert exposure(shuffled, shuffled_weights, group, k) == pytest.approx(held)
    assert 0 < coverage(ranked, "abcdef", k) <= 1
    assert coverage(ranked, "abcdef", k) <= coverage(ranked, "abcdef", k + 1)
