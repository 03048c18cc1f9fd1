"""A trial's rates at its share of a full training."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from reshelve.config.ranker import Ranker
from reshelve.tuning.rates import at_share, rate_factor

MakeRanker = Callable[..., Ranker]


@pytest.mark.parametrize(
    ("exponent", "share", "factor"),
    [(0.0, 0.01, 1.0), (0.3, 1.0, 1.0), (0.5, 0.25, 2.0), (1.0, 0.125, 8.0)],
    ids=["off", "a full training", "root", "as the length"],
)
def test_shorter_trainings_get_higher_rates(
    make_ranker: MakeRanker, exponent: float, share: float, factor: float
) -> None:
    ranker = make_ranker("next_item", **{"tuning.rate_exponent": exponent})
    assert rate_factor(ranker.tuning, share) == factor
    before, after = ranker.training, at_share(ranker, share).training
    assert after.learning_rate == before.learning_rate * factor
    assert after.head_learning_rate == before.head_learning_rate * factor
    same = {"learning_rate": before.learning_rate, "head_learning_rate": before.head_learning_rate}
    assert after.model_copy(update=same) == before


def test_no_rate_is_carried_over_the_limit_of_its_form(make_ranker: MakeRanker) -> None:
    values = {"tuning.rate_exponent": 1.0, "training.head_learning_rate": 0.5}
    assert at_share(make_ranker("next_item", **values), 0.1).training.head_learning_rate == 1.0
