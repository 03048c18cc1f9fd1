"""Values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, ndcg_score, roc_auc_score, top_k_accuracy_score

from reshelve.errors import ConfigurationError
from reshelve.evaluation.metrics import (
    Metric,
    auc,
    average_precision,
    mrr,
    ndcg,
    ndcg_of_gains,
    recall,
    reported,
)

RANKED = ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize(
    ("relevant", "k", "recall_", "mrr_", "map_"),
    [
        pytest.param({"a"}, 5, 1, 1, 1, id="first"),
        pytest.param({"c"}, 5, 1, 1 / 3, 1 / 3, id="third"),
        pytest.param({"c"}, 2, 0, 0, 0, id="beyond-the-depth"),
        pytest.param({"z"}, 5, 0, 0, 0, id="not-a-candidate"),
        pytest.param({"b", "d"}, 5, 1, 1 / 2, (1 / 2 + 2 / 4) / 2, id="two"),
        pytest.param({"b", "z"}, 5, 1 / 2, 1 / 2, (1 / 2) / 2, id="one-of-two"),
        pytest.param({"a", "b", "z"}, 2, 2 / 3, 1, 1, id="more-relevant-than-depth"),
    ],
)
def test_recall_mrr_and_map(relevant, k, recall_, mrr_, map_):
    assert recall(RANKED, relevant, k) == pytest.approx(recall_)
    assert mrr(RANKED, relevant, k) == pytest.approx(mrr_)
    assert average_precision(RANKED, relevant, k) == pytest.approx(map_)


def test_ndcg_of_one_relevant_item_is_its_discount():
    assert ndcg(RANKED, {"c"}, 5) == pytest.approx(1 / math.log2(4))
    assert ndcg(RANKED, {"c"}, 2) == 0


@pytest.mark.parametrize("metric", reported(Metric("map", 5), whole_lists=True), ids=str)
def test_where_nothing_is_relevant_there_is_no_value(metric):
    assert metric.of(RANKED, set()) is None
    assert metric.of([], {}) is None


def test_gains_that_are_all_0_have_no_ndcg():
    assert ndcg_of_gains(RANKED, {"a": 0.0, "b": 0.0}, 5) is None


def test_ndcg_with_graded_gains():
    # gains 2^g - 1: a 0, b 3, c 1; reached 3/log2(3) + 1/log2(4); ideal 3/log2(2) + 1/log2(3)
    reached = 3 / math.log2(3) + 1 / 2
    assert ndcg_of_gains(["a", "b", "c"], {"b": 2.0, "c": 1.0}, 10) == pytest.approx(
        reached / (3 + 1 / math.log2(3))
    )


@pytest.mark.parametrize(
    ("relevant", "expected"),
    [
        pytest.param({"a"}, 1, id="first"),
        pytest.param({"e"}, 0, id="last"),
        pytest.param({"b"}, 3 / 4, id="second-of-five"),
        pytest.param({"b", "d"}, (2 + 1) / 6, id="two"),
        pytest.param({"b", "z"}, 3 / 8, id="one-is-no-candidate"),
        pytest.param({"z"}, 0, id="not-a-candidate"),
    ],
)
def test_auc_of_one_list(relevant, expected):
    assert auc(RANKED, relevant, 5) == pytest.approx(expected)
    assert Metric("auc").of(RANKED, relevant) == pytest.approx(expected)


@pytest.mark.parametrize("ranked", [["a"], ["b", "a"], []], ids=["one-item", "all-relevant", "empty"])
def test_a_list_without_a_pair_has_no_auc(ranked):
    assert auc(ranked, {"a", "b"}, 5) is None


@settings(deadline=None)  # scikit-learn's first call is slow
@given(st.permutations(RANKED), st.sets(st.sampled_from(RANKED), min_size=1, max_size=4))
def test_scikit_learn_gives_the_same_values(ranked, relevant):
    truth, scores = [item in relevant for item in ranked], [-float(place) for place in range(5)]
    assert auc(ranked, relevant, 5) == pytest.approx(roc_auc_score(truth, scores))
    assert average_precision(ranked, relevant, 5) == pytest.approx(average_precision_score(truth, scores))
    assert ndcg(ranked, relevant, 3) == pytest.approx(ndcg_score([truth], [scores], k=3))


@settings(deadline=None)  # scikit-learn's first call is slow
@given(st.permutations(RANKED), st.lists(st.sampled_from([0.0, 1.0, 1.67, 3.0]), min_size=5, max_size=5))
def test_scikit_learn_gives_the_same_graded_ndcg(ranked, grades):
    gains = dict(zip(ranked, grades, strict=True))
    scores = [-float(place) for place in range(5)]
    expected = ndcg_score([[2**grade - 1 for grade in grades]], [scores], k=4)
    assert ndcg_of_gains(ranked, gains, 4) == (pytest.approx(expected) if any(grades) else None)


def test_scikit_learn_gives_the_same_recall_of_one_relevant_item():
    lists = [["a", "b", "c"], ["c", "a", "b"], ["b", "c", "a"]]
    scores = np.array([[-float(ranked.index(item)) for item in "abc"] for ranked in lists])
    ours = np.mean([recall(ranked, {"a"}, 2) for ranked in lists])
    assert ours == pytest.approx(top_k_accuracy_score([0, 0, 0], scores, k=2, labels=[0, 1, 2]))


@settings(deadline=None)  # scikit-learn's first call is slow
@given(st.permutations(RANKED), st.sets(st.sampled_from(RANKED), min_size=1), st.integers(1, 6))
def test_every_metric_lies_between_0_and_1_and_is_1_for_the_best_list(ranked, relevant, k):
    best = sorted(RANKED, key=lambda item: item not in relevant)
    for metric in reported(Metric("map", k), whole_lists=len(relevant) < len(RANKED)):
        assert 0 <= metric.of(ranked, relevant) <= metric.of(best, relevant) <= 1 + 1e-12
    assert Metric("ndcg", k).of(best, relevant) == pytest.approx(1)
    assert Metric("map", k).of(best, relevant) == pytest.approx(1)


def test_a_metric_is_read_from_its_name():
    assert Metric.parse("recall@20") == Metric("recall", 20)
    assert [str(metric) for metric in reported(Metric("map", 5))] == ["map@5", "recall@5", "mrr@5", "ndcg@5"]
    assert (str(Metric.parse("mrr")), str(Metric.parse("auc"))) == ("mrr", "auc")
    for wrong in ("auc@5", "map", "map@0", "map@x"):
        with pytest.raises(ConfigurationError, match="is not a metric"):
            Metric.parse(wrong)


def test_a_metric_without_a_depth_looks_at_the_whole_list():
    assert Metric("mrr").of(RANKED, {"e"}) == 1 / 5
    assert Metric("mrr", 4).of(RANKED, {"e"}) == 0
    beside = [str(metric) for metric in reported(Metric("auc"), whole_lists=True)]
    assert beside == ["auc", "recall@10", "mrr@10", "map@10", "ndcg@10"]
    assert str(reported(Metric("map", 5), whole_lists=True)[-1]) == "auc"
