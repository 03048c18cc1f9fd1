"""The first of an order, as a full stable sort has them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse

from reshelve.features.evidence import FEATURES
from reshelve.kinds.next_item.evaluation import Together
from reshelve.kinds.search.blend_stage import _ROUGH, shortlist
from reshelve.statistics.order import descending, first_of, greatest

# Few values, so that most of them are tied; both zeros, and what float32 has at its ends.
VALUES = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, -1e-45, 3.4e38, -3.4e38, np.inf, -np.inf])


@given(
    st.integers(1, 40).flatmap(
        lambda n: st.lists(
            arrays(np.float64, n, elements=st.one_of(VALUES, st.just(np.nan))), min_size=1, max_size=4
        )
    ),
    st.integers(0, 45),
)
def test_the_first_are_those_of_a_full_sort(keys: list[np.ndarray], count: int) -> None:
    assert first_of(keys, count).tolist() == np.lexsort(keys[::-1])[:count].tolist()


@given(
    arrays(
        np.float32,
        st.tuples(st.integers(1, 4), st.integers(1, 70)),
        elements=VALUES.map(np.float32).map(float),
    ),
    st.integers(1, 75),
)
def test_greatest_first_and_ties_by_place(values: np.ndarray, count: int) -> None:
    full = np.argsort(-values, axis=-1, kind="stable")
    assert np.array_equal(descending(values), full)
    assert np.array_equal(greatest(values, count), full[:, :count])


def by_full_sorts(features: np.ndarray) -> np.ndarray:
    fused = np.zeros(features.shape[:2], np.float32)
    for name in _ROUGH:
        order = np.argsort(-features[..., FEATURES.index(name)], axis=1, kind="stable")
        fused += 1.0 / (3 + np.argsort(order, axis=1, kind="stable"))
    return np.argsort(-fused, axis=1, kind="stable")[:, :64]


@pytest.mark.parametrize("items", [1, 63, 64, 65, 700])
@pytest.mark.parametrize("kinds", [2, 10**6], ids=["mostly tied", "hardly tied"])
def test_a_shortlist_is_that_of_full_sorts(items: int, kinds: int) -> None:
    drawn = np.random.default_rng(items).integers(-kinds, kinds, (5, items, len(FEATURES)))
    features = (drawn / 7).astype(np.float32)
    assert np.array_equal(shortlist(features), by_full_sorts(features))


@given(
    st.lists(st.sets(st.integers(0, 8), min_size=1), max_size=12), st.lists(st.integers(0, 8), max_size=30)
)
def test_what_is_bought_together_is_counted_alike_whatever_is_kept(
    baskets: list[set[int]], asked: list[int]
) -> None:
    held = (
        sparse.csr_matrix((len(baskets), 9))
        if not baskets
        else sparse.csr_matrix([[float(item in basket) for item in range(9)] for basket in baskets])
    )
    tight = Together(held, cells=4)
    for item in asked:
        expected = [
            float(sum({item, other} <= basket for basket in baskets)) if other != item else 0.0
            for other in range(9)
        ]
        assert tight.scores([item]).tolist() == expected
        assert tight.kept <= max(4, sum(map(bool, expected)))
    everything = Together(held)
    assert tight.scores(asked).tolist() == everything.scores(asked).tolist()
