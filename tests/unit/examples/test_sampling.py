from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reshelve.examples.sampling import Greatest, stable_hash


@given(st.lists(st.integers(), unique=True), st.integers(0, 10))
def test_the_greatest_are_kept_whatever_the_order(keys, limit):
    kept = Greatest[int](limit)
    for key in keys:
        kept.add(key, key)
    assert kept.items() == sorted(keys)[max(0, len(keys) - limit) :]


def test_a_hash_is_the_same_in_every_process():
    assert stable_hash(17, "basket") == 0xFBB1668C4FA2C064
    assert stable_hash("a", "b") != stable_hash("ab")
