from __future__ import annotations

from dataclasses import astuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reshelve.evaluation.fairness import Tally, fairness, tally
from reshelve.examples.formats import HoldoutQuery

MANY = (500, 500, 500, 500)  # questions and clusters, of all and of those with something relevant


def test_the_rates_by_hand():
    found = fairness(
        {
            # north: 2 relevant, 1 of them shown; 2 others, 1 of them shown. south: 1 relevant, shown; 3 others, none shown
            "north": Tally(2, 1, 2, 1, *MANY),
            "south": Tally(1, 1, 3, 0, *MANY),
        },
        least=30,
    )
    assert found.selection == {"north": 0.5, "south": 0.25}
    assert found.true_positive == {"north": 0.5, "south": 1.0}
    assert found.false_positive == {"north": 0.5, "south": 0.0}
    assert found.demographic_parity == 0.25
    assert found.equalized_odds == 0.5


def test_a_group_without_a_relevant_candidate_has_no_true_positive_rate():
    found = fairness({"n": Tally(1, 1, 0, 0, *MANY), "s": Tally(0, 0, 1, 1, *MANY)}, least=30)
    assert (found.true_positive, found.false_positive) == ({"n": 1.0}, {"s": 1.0})
    assert found.equalized_odds is None, "neither rate is known of two groups"


@pytest.mark.parametrize(
    "seen",
    [(1, 1, 1, 1), (29, 29, 29, 29), (500, 9, 500, 9), (500, 500, 1, 1)],
    ids=["one question", "few questions", "few customers", "hardly anything relevant"],
)
def test_a_group_of_few_questions_has_no_part_in_the_differences(seen):
    groups = {"home": Tally(100, 50, 100, 50, *MANY), "away": Tally(100, 40, 100, 50, *MANY)}
    tiny = Tally(1, 0, 50, 25, *seen)
    without, with_it = fairness(groups, least=30), fairness({**groups, "rare": tiny}, least=30)
    assert with_it.equalized_odds == without.equalized_odds == pytest.approx(0.1)
    assert with_it.too_few == {"rare": seen[2]} and not without.too_few
    assert with_it.true_positive["rare"] == 0, "its own rates are shown all the same"


def test_one_group_is_alike_with_nobody():
    alone = fairness({"home": Tally(100, 50, 100, 50, *MANY)}, least=30)
    assert (alone.demographic_parity, alone.equalized_odds) == (None, None)
    assert fairness({}, least=30).demographic_parity is None


def test_every_candidate_counts_once_with_the_weight_of_its_question():
    asked = [
        HoldoutQuery("1", "lamp", ["lamp"], 2.0, "c", candidates=["lamp", "cup"], segment="north"),
        HoldoutQuery("2", "tea", ["tea"], 1.0, "c"),
    ]
    ranked, catalogue = [["cup", "lamp"], ["tea"]], ["tea", "lamp"]
    brand = {"lamp": "ours", "tea": "theirs"}
    assert tally(ranked, asked, catalogue, 1, brand) == {
        "ours": Tally(2, 0, 1, 0, questions=2, clusters=1, relevant_questions=1, relevant_clusters=1),
        "theirs": Tally(1, 1, 0, 0, questions=1, clusters=1, relevant_questions=1, relevant_clusters=1),
        "unknown": Tally(0, 0, 2, 2, questions=1, clusters=1, relevant_questions=0, relevant_clusters=0),
    }
    assert tally(ranked, asked, catalogue, 1) == {
        "north": Tally(2, 0, 2, 2, questions=1, clusters=1, relevant_questions=1, relevant_clusters=1),
        "unknown": Tally(1, 1, 1, 0, questions=1, clusters=1, relevant_questions=1, relevant_clusters=1),
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
        name: list(astuple(group)[:4]) for name, group in found.items() if group.relevant + group.other > 0
    }
    rates = fairness(found, least=1, least_clusters=1)
    for name in ("demographic_parity", "equalized_odds"):
        assert getattr(rates, name) is None or 0 <= getattr(rates, name) <= 1 + 1e-12
