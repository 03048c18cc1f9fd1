from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reshelve.evaluation.fairness import Row, fairness, rows
from reshelve.examples.formats import HoldoutQuery


def test_the_rates_by_hand():
    found = fairness(
        [
            # north: 2 relevant, 1 of them shown; 2 others, 1 of them shown
            Row(True, True, "north", 1.0), Row(True, False, "north", 1.0),
            Row(False, True, "north", 1.0), Row(False, False, "north", 1.0),
            # south: 1 relevant, shown; 3 others, none shown
            Row(True, True, "south", 1.0), *[Row(False, False, "south", 1.0)] * 3,
        ]
    )  # fmt: skip
    assert found.selection == {"north": 0.5, "south": 0.25}
    assert found.true_positive == {"north": 0.5, "south": 1.0}
    assert found.false_positive == {"north": 0.5, "south": 0.0}
    assert found.demographic_parity == 0.25
    assert found.equalized_odds == 0.5


def test_weights_count():
    found = fairness([Row(True, True, "n", 3.0), Row(True, False, "n", 1.0), Row(True, True, "s", 1.0)])
    assert found.selection == {"n": 0.75, "s": 1.0}


def test_a_group_without_a_relevant_row_has_no_true_positive_rate():
    found = fairness([Row(True, True, "n", 1.0), Row(False, True, "s", 1.0)])
    assert (found.true_positive, found.false_positive) == ({"n": 1.0}, {"s": 1.0})
    assert found.equalized_odds == 0


ROWS = st.lists(
    st.builds(Row, st.booleans(), st.booleans(), st.sampled_from("abc"), st.floats(0.5, 2)),
    min_size=1,
    max_size=30,
)


@given(ROWS, st.randoms())
def test_differences_lie_between_0_and_1_whatever_the_order(found, random):
    first, second = fairness(found), fairness(random.sample(found, len(found)))
    for name in ("demographic_parity", "equalized_odds"):
        assert 0 <= getattr(first, name) <= 1 + 1e-12
        assert getattr(second, name) == pytest.approx(getattr(first, name))
    one = fairness([row._replace(group="all") for row in found])
    assert one.demographic_parity == one.equalized_odds == 0


def test_every_candidate_is_a_row():
    asked = [
        HoldoutQuery("1", "lamp", ["lamp"], 2.0, "c", candidates=["lamp", "cup"]),
        HoldoutQuery("2", "tea", ["tea"], 1.0, "c"),
    ]
    brand = {"lamp": "ours", "cup": "theirs", "tea": "theirs"}
    found = rows([["cup", "lamp"], ["tea"]], asked, ["tea", "lamp"], lambda _, item: brand[item], k=1)
    assert list(found) == [
        Row(True, False, "ours", 2.0),
        Row(False, True, "theirs", 2.0),
        Row(True, True, "theirs", 1.0),
        Row(False, False, "ours", 1.0),
    ]
