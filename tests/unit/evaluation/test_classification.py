from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reshelve.evaluation.classification import auc, log_loss

ONE = np.ones(4)


def test_auc_by_hand():
    # Pairs (yes, no): .9>.8, .9>.1, .4<.8, .4>.1: three of four in order.
    outcome = np.array([True, False, True, False])
    assert auc(outcome, np.array([0.9, 0.8, 0.4, 0.1]), ONE) == pytest.approx(3 / 4)
    assert auc(outcome, np.full(4, 0.5), ONE) == pytest.approx(1 / 2)  # ties half
    # The no at .8 weighs 3 of 4: 1/4 · 1 (against .1) + 3/4 · 1/2 (against .8)
    assert auc(outcome, np.array([0.9, 0.8, 0.4, 0.1]), np.array([1, 3, 1, 1])) == pytest.approx(5 / 8)


def test_log_loss_by_hand():
    outcome, probability = np.array([True, False]), np.array([0.5, 0.2])
    assert log_loss(outcome, probability, np.ones(2)) == pytest.approx(-(math.log(0.5) + math.log(0.8)) / 2)
    weighted = -(3 * math.log(0.5) + math.log(0.8)) / 4
    assert log_loss(outcome, probability, np.array([3.0, 1.0])) == pytest.approx(weighted)


def test_what_cannot_be_measured_is_none_and_certainty_is_finite():
    assert auc(np.array([True, True]), np.array([0.1, 0.2]), np.ones(2)) is None
    assert auc(np.array([], dtype=bool), np.array([]), np.array([])) is None
    assert log_loss(np.array([], dtype=bool), np.array([]), np.array([])) is None
    assert log_loss(np.array([True, True]), np.array([1.0, 1.0]), np.ones(2)) == pytest.approx(0, abs=1e-9)
    wrong = log_loss(np.array([True]), np.array([0.0]), np.ones(1))
    assert wrong is not None
    assert 10 < wrong < math.inf


@settings(deadline=None, max_examples=30)  # scikit-learn's first call is slow
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 100)), min_size=2, max_size=30), st.randoms())
def test_auc_lies_between_0_and_1_whatever_the_order_and_the_unit(rows, random):
    def measured(found, unit=1.0):
        outcome, score = (np.array(column) for column in zip(*found, strict=True))
        return auc(outcome.astype(bool), score * unit, np.ones(len(found)))

    first = measured(rows)
    if len({yes for yes, _ in rows}) == 1:
        assert first is None
        return
    shuffled = random.sample(rows, len(rows))
    assert 0 <= first <= 1
    assert measured(shuffled) == pytest.approx(first)
    assert measured(rows, unit=7.0) == pytest.approx(first)
    assert measured(rows, unit=-1.0) == pytest.approx(1 - first)
