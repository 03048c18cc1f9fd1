from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve

from reshelve.evaluation.calibration import (
    Bin,
    Predictions,
    expected_calibration_error,
    predictions,
    reliability,
)
from reshelve.evaluation.scoring import RankedAnswers
from reshelve.examples.formats import HoldoutQuery

NAN = math.nan
ROWS = st.lists(
    st.tuples(st.floats(0, 1), st.booleans(), st.integers(1, 4), st.integers(0, 5)), min_size=1, max_size=40
)


def made(rows) -> Predictions:
    probability, outcome, weight, cluster = zip(*rows, strict=True)
    return Predictions(
        np.array(probability, dtype=float), np.array(outcome, dtype=bool), np.array(weight, dtype=float),
        [str(each) for each in cluster],
    )  # fmt: skip


# Two bins of four: .2 and .4 with one yes of weight 1 in 4; .9 twice, both yes.
FOUR = made([(0.2, False, 3, "a"), (0.4, True, 1, "b"), (0.9, True, 2, "c"), (0.9, True, 2, "d")])


def test_the_reliability_table_by_hand():
    low, high = reliability(FOUR, bins=2)
    assert low == Bin(0.0, 0.5, 2, 0.5, pytest.approx((3 * 0.2 + 0.4) / 4), 0.25)
    assert high == Bin(0.5, 1.0, 2, 0.5, pytest.approx(0.9), 1.0)


def test_the_error_by_hand():
    found = expected_calibration_error(FOUR, seed=1, bins=2)
    assert found is not None
    # Half the weight is off by |.25 − .25|, half by |.9 − 1|.
    assert found.value == pytest.approx(0.05)
    assert found.low <= found.value <= found.high


def test_the_table_agrees_with_scikit_learn():
    random = np.random.default_rng(5)
    probability = random.random(500)
    outcome = random.random(500) < probability**2
    table = reliability(made(zip(probability, outcome, np.ones(500), range(500), strict=True)))
    observed, predicted = calibration_curve(outcome, probability, n_bins=10)
    assert [row.observed for row in table] == pytest.approx(observed.tolist())
    assert [row.predicted for row in table] == pytest.approx(predicted.tolist())


def test_honest_probabilities_have_a_small_error_and_boasts_a_large_one():
    random = np.random.default_rng(5)
    probability = random.random(1000)
    outcome = random.random(1000) < probability
    honest = expected_calibration_error(
        made(zip(probability, outcome, np.ones(1000), range(1000), strict=True)), 1
    )
    boast = expected_calibration_error(
        made(zip(np.sqrt(probability), outcome, np.ones(1000), range(1000), strict=True)), 1
    )
    assert honest is not None
    assert boast is not None
    assert honest.high < 0.1
    # ∫ √p − p over [0, 1] is 1/6.
    assert boast.low < 1 / 6 < boast.high


def test_rows_of_one_cluster_tell_no_more_than_one():
    random = np.random.default_rng(3)
    rows = [(p, random.random() < p, 1, n) for n, p in enumerate(random.random(60))]
    alone = expected_calibration_error(made(rows), 1)
    copied = expected_calibration_error(made([row for row in rows for _ in range(10)]), 1)
    assert copied == alone or copied.high - copied.low == pytest.approx(alone.high - alone.low)


@settings(deadline=None)  # scikit-learn's first call is slow
@given(ROWS, st.randoms())
def test_the_error_lies_between_0_and_1_whatever_the_order(rows, random):
    found = expected_calibration_error(made(rows), 1)
    shuffled = expected_calibration_error(made(random.sample(rows, len(rows))), 1)
    assert 0 <= found.low <= found.high <= 1 + 1e-12
    assert 0 <= found.value <= 1 + 1e-12
    assert shuffled.value == pytest.approx(found.value)
    table = reliability(made(rows))
    assert sum(row.share for row in table) == pytest.approx(1)
    assert sum(row.predictions for row in table) == len(rows)
    assert sum(row.share * abs(row.predicted - row.observed) for row in table) == pytest.approx(found.value)


@settings(deadline=None)  # scikit-learn's first call is slow
@given(st.lists(st.booleans(), min_size=1, max_size=20))
def test_certainty_that_comes_true_has_no_error(outcomes):
    rows = [(float(outcome), outcome, 1, n) for n, outcome in enumerate(outcomes)]
    assert expected_calibration_error(made(rows), 1).high == 0


ASKED = [
    HoldoutQuery("1", "red lamp", ["lamp"], 2.0, "c1", candidates=["lamp", "cup", "new"]),
    HoldoutQuery("2", "cup", ["tea"], 1.0, "c2", candidates=["cup"]),
]
ANSWERS = RankedAnswers([["cup", "lamp", "new"], ["cup"]], [[0.6, 0.3, NAN], [0.2]], 0)


def test_a_pair_ranker_predicts_each_candidate_and_nothing_of_an_item_without_a_score():
    found = predictions(ANSWERS, ASKED, "pair")
    assert found.probability.tolist() == [0.6, 0.3, 0.2]
    assert found.outcome.tolist() == [False, True, False]
    assert found.weight.tolist() == [2, 2, 1]
    assert list(found.cluster) == ["c1", "c1", "c2"]


def test_a_next_item_ranker_predicts_its_first_item():
    found = predictions(ANSWERS, ASKED, "next_item")
    assert found.probability.tolist() == [0.6, 0.2]
    assert not found.outcome.any()


def test_a_score_that_is_no_probability_predicts_nothing():
    logits = RankedAnswers([["cup", "lamp", "new"]], [[3.5, 1.0, -0.5]], 0)
    assert predictions(logits, ASKED[:1], "pair").probability.tolist() == [1.0]


def test_no_score_at_all_is_no_calibration():
    broken = predictions(RankedAnswers([["cup"]], [[NAN]], 1), ASKED[:1], "pair")
    assert len(broken) == 0
    assert expected_calibration_error(broken, 1) is None
    assert reliability(broken) == []
