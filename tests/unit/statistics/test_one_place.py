"""Every interval and test statistic is in `reshelve.statistics`, is an Interval, and holds what it should as often as it says."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import reshelve
from reshelve.client.client import Answer
from reshelve.kind_registry import kind_of
from reshelve.statistics.bootstrap import bootstrap_of_independent, bootstrap_of_median_ratio
from reshelve.statistics.interval import Interval
from reshelve.statistics.normal import Z_95, chi_square_999, mean_of_sums
from reshelve.statistics.quantiles import order_statistics
from reshelve.statistics.rates import newcombe, wilson
from reshelve.statistics.stability import population_stability

_PACKAGE = Path(reshelve.__file__).parent
_QUANTILES = {1.645, 1.96, 2.326, 2.576, 3.09, 3.291, 1.4826}
_TESTS = {"spearmanr", "kendalltau", "norm", "chi2", "binomtest", "multinomial", "NormalDist"}


def _own_statistics(tree: ast.AST) -> list[str]:
    """What looks like a statistic of a file's own."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, float) and node.value in _QUANTILES:
            found.append(f"line {node.lineno}: {node.value}")
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("scipy.stats"):
            found.append(f"line {node.lineno}: from {node.module}")
        if isinstance(node, ast.Attribute) and node.attr in _TESTS - {"norm"}:
            found.append(f"line {node.lineno}: {node.attr}")
        if isinstance(node, ast.ClassDef) and {"low", "high"} <= {
            child.target.id
            for child in node.body
            if isinstance(child, ast.AnnAssign) and isinstance(child.target, ast.Name)
        }:
            found.append(f"line {node.lineno}: class {node.name}")
    return found


def test_no_other_package_has_a_statistic_of_its_own():
    assert _own_statistics(ast.parse("class Ours:\n    low: float\n    high: float\nhalf = 1.96")), (
        "the test sees one"
    )
    ours = {
        "evaluation/calibration.py: class Bin",
        "validation/rule_base.py: class Range",
        "charts.py: class ForestRow",
        "pipeline/estimate.py: class Estimate",
    }  # ranges and what is drawn, no intervals
    found = {
        f"{path.relative_to(_PACKAGE)}: {one.split(': ', 1)[1]}"
        for path in _PACKAGE.rglob("*.py")
        if "statistics" not in path.parts
        for one in _own_statistics(ast.parse(path.read_text()))
    }
    assert found - ours == set()


def test_ties_share_their_rank_in_a_shadow():
    """One item stands out and the others tie: broken by their order, ties would agree or not as the rows happen to lie."""
    old = Answer(1, {"score": np.array([0.9, 0.1, 0.1, 0.1, 0.1])})
    new = Answer(2, {"score": np.array([0.9, 0.4, 0.3, 0.2, 0.1])})
    turned = Answer(2, {"score": np.array([0.9, 0.1, 0.2, 0.3, 0.4])})
    agreement = kind_of("pair").requests.agreement
    assert agreement(old, new) == pytest.approx(agreement(old, turned))
    expected = stats.spearmanr(old.outputs["score"], new.outputs["score"]).statistic
    assert agreement(old, new) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("interval", "truth", "level"),
    [
        pytest.param(lambda draw: wilson(int(draw.binomial(400, 0.03)), 400), 0.03, 0.99, id="wilson"),
        pytest.param(
            lambda draw: newcombe(int(draw.binomial(300, 0.1)), 300, int(draw.binomial(500, 0.04)), 500),
            0.06,
            0.99,
            id="newcombe",
        ),
        pytest.param(
            lambda draw: _p90(draw.exponential(size=500)), -np.log(0.1), 0.99, id="order statistics"
        ),
        pytest.param(lambda draw: _mean(draw.exponential(size=300)), 1.0, 0.95, id="normal mean"),
        pytest.param(
            lambda draw: bootstrap_of_independent(draw.exponential(size=200), 1), 1.0, 0.95, id="bootstrap"
        ),
        pytest.param(
            lambda draw: bootstrap_of_median_ratio([1.0] * 81, draw.lognormal(size=81).tolist()),
            1.0,
            0.95,
            id="median of ratios",
        ),
    ],
)
def test_an_interval_holds_the_truth_as_often_as_it_says(interval, truth, level):
    draw, times = np.random.default_rng(7), 300
    found = [interval(draw) for _ in range(times)]
    assert all(isinstance(one, Interval) and one.low <= one.value <= one.high for one in found)
    share = np.mean([one.low <= truth <= one.high for one in found])
    chance = 3 * np.sqrt(level * (1 - level) / times) + 0.01  # none of the methods is exact
    assert level - chance <= share


def _p90(values: np.ndarray) -> Interval:
    ordered = np.sort(values)
    found = order_statistics(lambda rank: float(ordered[int(np.ceil(rank)) - 1]), len(values), 0.9)
    assert found is not None
    return found


def _mean(values: np.ndarray) -> Interval:
    found = mean_of_sums(float(values.sum()), float((values**2).sum()), len(values))
    assert found is not None
    return found


def test_of_nothing_nothing_is_known():
    assert wilson(0, 0).ends == (0.0, 1.0) and newcombe(0, 0, 1, 2).ends == (-1.0, 1.0)
    assert order_statistics(float, 0, 0.5) is None and mean_of_sums(1.0, 1.0, 1) is None


def test_quantiles_are_those_of_the_distributions():
    assert pytest.approx(stats.norm.ppf(0.975), abs=1e-3) == Z_95
    for freedom in (1, 9, 40):
        assert chi_square_999(freedom) == pytest.approx(stats.chi2.ppf(0.999, freedom), rel=0.04)


def test_the_index_of_equal_histograms_is_within_chance():
    draw = np.random.default_rng(3)
    halves = draw.multinomial(2000, np.full(10, 0.1), size=2).T.tolist()
    same = population_stability([(a, b) for a, b in halves])
    moved = population_stability([(300, 100), (100, 300)])
    assert same.psi < same.chance and moved.psi > moved.chance


def test_a_difference_turned_round():
    assert -Interval(0.25, -0.5, 1.0) == Interval(-0.25, -1.0, 0.5)
    assert Interval(0.012, -0.001, 0.025).signed == "+0.0120 (-0.0010 to +0.0250)"
