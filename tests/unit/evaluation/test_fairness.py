from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reshelve.evaluation.fairness import Tally, fairness, tally
from reshelve.examples.formats import HoldoutQuery


def test_the_rates_by_hand():
    found = fairness(
        {
            # north: 2 relevant, 1 of them shown; 2 others, 1 of them shown. south: 1 relevant, shown; 3 others, none shown
            "north": Tally(relevant=2, relevant_selected=1, other=2, other_selected=1),
            "south": Tally(relevant=1, relevant_selected=1, other=3, other_selected=0),
        }
    )
    assert found.selection == {"north": 0.5, "south": 0.25}
    assert found.true_positive == {"north": 0.5, "south": 1.0}
    assert found.false_positive == {"north": 0.5, "south": 0.0}
    assert found.demographic_parity == 0.25
    assert found.equalized_odds == 0.5


def test_a_group_without_a_relevant_candidate_has_no_true_positive_rate():
    found = fairness({"n": Tally(relevant=1, relevant_selected=1), "s": Tally(other=1, other_selected=1)})
    assert (found.true_positive, found.false_positive) == ({"n": 1.0}, {"s": 1.0})
    assert found.equalized_odds == 0


def test_every_candidate_counts_once_with_the_weight_of_its_question():
    asked = [
        HoldoutQuery("1", "lamp", ["lamp"], 2.0, "c", candidates=["lamp", "cup"], segment="north"),
        HoldoutQuery("2", "tea", ["tea"], 1.0, "c"),
    ]
    ranked, catalogue = [["cup", "lamp"], ["tea"]], ["tea", "lamp"]
    brand = {"lamp": "ours", "tea": "theirs"}
    assert tally(ranked, asked, catalogue, 1, brand) == {
        "ours": Tally(relevant=2, relevant_selected=0, other=1, other_selected=0),
        "theirs": Tally(relevant=1, relevant_selected=1, other=0, other_selected=0),
        "unknown": Tally(relevant=0, relevant_selected=0, other=2, other_selected=2),
    }
    assert tally(ranked, asked, catalogue, 1) == {
        "north": Tally(relevant=2, relevant_selected=0, other=2, other_selected=2),
        "unknown": Tally(relevant=1, relevant_selected=1, other=1, other_selected=0),
    }


ITEMS = "abcde"
QUERIES = st.lists(
    st.builds(
        HoldoutQuery, st.just("1"), st.just("text"), st.lists(st.sampled_from("abxy"), unique=True),
        st.floats(0.5, 2), st.just("c"), candidates=st.lists(st.sampled_from("abxyz"), unique=True),
        segment=st.sampled_from([None, "north", "south"]),
    ),
    min_size=1, max_size=12,
)  # fmt: skip


@given(QUERIES, st.permutations("abcdexyz"), st.integers(1, 6), st.booleans())
def test_equal_to_counting_candidate_by_candidate(queries, order, k, by_item):
    category = {"a": "warm", "b": "cold", "x": "cold"} if by_item else None
    counted: dict[str, list[float]] = {}
    for query in queries:
        for item in query.candidates or ITEMS:
            group = (category.get(item) if category else query.segment) or "unknown"
            sums = counted.setdefault(group, [0.0] * 4)
            first = 0 if item in query.relevant else 2
            sums[first] += query.weight
            sums[first + 1] += query.weight * (item in order[:k])
    found = tally([order] * len(queries), queries, ITEMS, k, category)
    assert {name: pytest.approx(sums) for name, sums in counted.items()} == {
        name: [group.relevant, group.relevant_selected, group.other, group.other_selected]
        for name, group in found.items()
        if group.relevant + group.other > 0
    }
    rates = fairness(found)
    for name in ("demographic_parity", "equalized_odds"):
        assert 0 <= getattr(rates, name) <= 1 + 1e-12
