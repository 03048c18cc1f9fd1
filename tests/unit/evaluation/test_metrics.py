"""Values worked out by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reshelve.errors import ConfigurationError
from reshelve.evaluation.metrics import Metric, average_precision, mrr, ndcg, ndcg_of_gains, recall, reported

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
        pytest.param(set(), 5, 0, 0, 0, id="nothing-relevant"),
    ],
)
def test_recall_mrr_and_map(relevant, k, recall_, mrr_, map_):
    assert recall(RANKED, relevant, k) == pytest.approx(recall_)
    assert mrr(RANKED, relevant, k) == pytest.approx(mrr_)
    assert average_precision(RANKED, relevant, k) == pytest.approx(map_)


def test_ndcg_of_one_relevant_item_is_its_discount():
    assert ndcg(RANKED, {"c"}, 5) == pytest.approx(1 / math.log2(4))
    assert ndcg(RANKED, {"c"}, 2) == 0
    assert ndcg(RANKED, set(), 5) == 0


def test_ndcg_with_graded_gains():
    # gains 2^g - 1: a 0, b 3, c 1; reached 3/log2(3) + 1/log2(4); ideal 3/log2(2) + 1/log2(3)
    reached = 3 / math.log2(3) + 1 / 2
    assert ndcg_of_gains(["a", "b", "c"], {"b": 2.0, "c": 1.0}, 10) == pytest.approx(
        reached / (3 + 1 / math.log2(3))
    )


@given(st.permutations(RANKED), st.sets(st.sampled_from(RANKED), min_size=1), st.integers(1, 6))
def test_every_metric_lies_between_0_and_1_and_is_1_for_the_best_list(ranked, relevant, k):
    best = sorted(RANKED, key=lambda item: item not in relevant)
    for metric in reported(Metric("map", k)):
        assert 0 <= metric.of(ranked, relevant) <= metric.of(best, relevant) <= 1 + 1e-12
    assert Metric("ndcg", k).of(best, relevant) == pytest.approx(1)
    assert Metric("map", k).of(best, relevant) == pytest.approx(1)


def test_a_metric_is_read_from_its_name():
    assert Metric.parse("recall@20") == Metric("recall", 20)
    assert [str(metric) for metric in reported(Metric("map", 5))] == ["map@5", "recall@5", "mrr@5", "ndcg@5"]
    for wrong in ("auc@5", "map", "map@0", "map@x"):
        with pytest.raises(ConfigurationError, match="is no metric"):
            Metric.parse(wrong)
