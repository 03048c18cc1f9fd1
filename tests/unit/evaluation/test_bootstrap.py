from __future__ import annotations

import numpy as np
import pytest

from reshelve.statistics.bootstrap import bootstrap
from reshelve.statistics.interval import Interval


def names(count: int) -> list[str]:
    return [str(number) for number in range(count)]


def test_the_interval_agrees_with_the_normal_one_for_many_queries():
    values = np.random.default_rng(1).normal(0.3, 0.5, size=2000)
    found = bootstrap(values.tolist(), [1.0] * 2000, names(2000), seed=3)
    half = 1.96 * values.std() / np.sqrt(2000)
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_ten_copies_of_a_cluster_tell_no_more_than_one():
    values = np.random.default_rng(1).normal(size=50)
    alone = bootstrap(values.tolist(), [1.0] * 50, names(50), seed=3)
    copied = bootstrap(np.repeat(values, 10).tolist(), [1.0] * 500, np.repeat(names(50), 10).tolist(), seed=3)
    apart = bootstrap(np.repeat(values, 10).tolist(), [1.0] * 500, names(500), seed=3)
    assert copied.high - copied.low == pytest.approx(alone.high - alone.low)
    assert apart.high - apart.low < 0.5 * (copied.high - copied.low)


def test_weights_count():
    assert bootstrap([1.0, 0.0], [3.0, 1.0], names(2), seed=0).value == 0.75


def test_the_same_seed_gives_the_same_interval_and_equal_values_none():
    values = [0.0, 1.0, 0.5, 0.25]
    assert bootstrap(values, [1.0] * 4, names(4), 5) == bootstrap(values, [1.0] * 4, names(4), 5)
    assert bootstrap([0.0] * 4, [1.0] * 4, names(4), 5) == Interval(0, 0, 0)
