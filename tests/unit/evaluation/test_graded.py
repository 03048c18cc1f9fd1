"""Against values worked out by hand, and against the published figures of a real data set of human grades."""

from __future__ import annotations

import math
import statistics
from itertools import groupby
from pathlib import Path

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reshelve.evaluation.graded import rmse
from reshelve.evaluation.metrics import ndcg_of_gains
from reshelve.examples.titles import TextIndex, words
from reshelve.statistics.correlation import spearman

NUMBERS = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 3)), min_size=1, max_size=20)


def test_spearman_by_hand():
    # No ties: 1 − 6·Σd²/(n(n²−1)); ranks 1 2 3 4 against 2 1 4 3: Σd² = 4
    assert spearman([1.0, 2.0, 3.0, 4.0], [20.0, 10.0, 40.0, 30.0]) == pytest.approx(1 - 6 * 4 / (4 * 15))
    # Ties at their mean rank: 1.5 1.5 3 against 1 2 3
    assert spearman([5.0, 5.0, 9.0], [1.0, 2.0, 3.0]) == pytest.approx(math.sqrt(3) / 2)


@pytest.mark.parametrize("scores", [[], [1.0], [2.0, 2.0, 2.0]], ids=["none", "one", "constant"])
def test_what_orders_nothing_has_no_correlation(scores):
    assert spearman(scores, [float(n) for n in range(len(scores))]) is None
    assert rmse([], []) is None


def test_rmse_by_hand():
    assert rmse([1.0, 2.0, 5.0], [1.0, 4.0, 4.0]) == pytest.approx(math.sqrt((0 + 4 + 1) / 3))
    assert rmse([1.0, 2.0], [1.0, 2.0]) == 0


@settings(deadline=None)  # scikit-learn's first call is slow
@given(NUMBERS, st.randoms())
def test_neither_depends_on_the_order_of_the_rows(rows, random):
    def both(found):
        scores, grades = (np.array(column, dtype=float) for column in zip(*found, strict=True))
        return spearman(scores, grades), rmse(scores, grades), spearman(np.exp(scores), grades)

    correlation, error, grown = both(rows)
    assert correlation is None or -1 - 1e-12 <= correlation <= 1 + 1e-12
    assert grown == (correlation and pytest.approx(correlation))  # only the order counts
    assert error >= 0
    again = both(random.sample(rows, len(rows)))
    assert again[0] == (correlation and pytest.approx(correlation)) and again[1] == pytest.approx(error)


@pytest.fixture(scope="module")
def rated(shop_data: Path) -> list[tuple[str, str, float]]:
    """(term, title, relevance 1 to 3) of Home Depot's human raters, by term."""
    path = shop_data / "home_depot_2016" / "pairs.parquet"
    return duckdb.sql(
        f"SELECT search_term, product_title, relevance FROM '{path}' ORDER BY search_term, product_title"
    ).fetchall()


def test_the_error_of_the_mean_grade_is_as_published(rated):
    relevance = np.array([grade for _, _, grade in rated])
    assert rmse(np.full(len(relevance), relevance.mean()), relevance) == pytest.approx(0.534, abs=0.0006)


def test_the_correlation_of_shared_words_is_as_published(rated):
    overlap = [len(set(words(term)) & set(words(title))) / len(set(words(term))) for term, title, _ in rated]
    assert spearman(overlap, [grade for _, _, grade in rated]) == pytest.approx(0.288, abs=0.02)


def test_ndcg_of_real_grades_is_as_published_for_bm25(rated):
    """nDCG@10 with gain 2^(relevance − 1) − 1, terms with at least 3 results: random 0.873, BM25 0.888."""
    random = np.random.default_rng(0)
    terms = [(term, list(group)) for term, group in groupby(rated, key=lambda row: row[0])][::10]
    titles = sorted(
        {title for _, group in terms for _, title, _ in group}
    )  # every tenth term's: a second's work
    place, index = {title: n for n, title in enumerate(titles)}, TextIndex(titles)
    by_words, by_chance = [], []
    for term, group in terms:
        gains = {title: grade - 1 for _, title, grade in group}
        if len(gains) < 3:
            continue
        scores = index.scores(term)
        by_words.append(ndcg_of_gains(sorted(gains, key=lambda t: (-scores[place[t]], t)), gains, 10))
        by_chance.append(ndcg_of_gains(random.permutation(list(gains)).tolist(), gains, 10))
    assert statistics.fmean(by_chance) == pytest.approx(0.873, abs=0.01)
    assert statistics.fmean(by_words) == pytest.approx(0.888, abs=0.01)
    assert statistics.fmean(by_words) > statistics.fmean(by_chance)
