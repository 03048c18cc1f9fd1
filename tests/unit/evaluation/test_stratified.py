"""Two arms stratum by stratum: what is known in closed form, what sessions do, and how often looking again misleads."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reshelve.statistics.stratified import Arm, Stratum, critical_value, mantel_haenszel


def arm(n: np.ndarray, k: np.ndarray) -> Arm:
    return Arm(len(n), n.sum(), k.sum(), (n * n).sum(), (n * k).sum(), (k * k).sum())


def singles(requests: int, clicks: int) -> Arm:
    """Every session asks once."""
    k = np.zeros(requests)
    k[:clicks] = 1
    return arm(np.ones(requests), k)


def times(one: Arm, factor: int) -> Arm:
    """Each session's requests and clicks come `factor` times: nothing more is known."""
    return Arm(
        one.sessions, one.n * factor, one.k * factor, *(x * factor**2 for x in (one.nn, one.nk, one.kk))
    )


def test_mantel_and_haenszel_by_hand() -> None:
    """Clicks 10 of 100 beside 30 of 200, and 40 of 100 beside 50 of 100: (10·200/300 + 40/2) / (30·100/300 + 50/2)."""
    found = mantel_haenszel(
        [Stratum(singles(100, 10), singles(200, 30)), Stratum(singles(100, 40), singles(100, 50))]
    )
    assert found.value == pytest.approx((20 / 3 + 20) / (10 + 25))
    assert found.low < found.value < found.high


def test_one_stratum_is_the_score_interval_of_two_rates() -> None:
    """At each end the two-sample z under that ratio is the critical value, or a little more: both arms' spreads are asked."""
    found = mantel_haenszel([Stratum(singles(4000, 700), singles(6000, 1200))])
    most = critical_value(4000 * 6000 / 10_000)
    for end in (found.low, found.high):
        rate = (700 + 1200) / (end * 4000 + 6000)
        spread = math.sqrt(end * rate * (1 - end * rate) / 4000 + end**2 * rate * (1 - rate) / 6000)
        assert 0.999 * most <= abs(700 / 4000 - end * 1200 / 6000) / spread <= 1.05 * most


def test_night_is_not_taken_for_day() -> None:
    """Both versions 5 % at night and 20 % by day, but one is asked by night and the other by day."""
    night = Stratum(singles(9000, 450), singles(1000, 50))
    day = Stratum(singles(1000, 200), singles(9000, 1800))
    found = mantel_haenszel([night, day])
    assert found.value == pytest.approx(1) and found.low < 1 < found.high
    together = mantel_haenszel([Stratum(singles(10_000, 650), singles(10_000, 1850))])
    assert together.high < 0.5, "pooled, the same counts say that it halves the clicks"


def test_requests_of_one_session_are_no_further_evidence() -> None:
    a, b = singles(2000, 300), singles(2000, 360)
    once, often = mantel_haenszel([Stratum(a, b)]), mantel_haenszel([Stratum(times(a, 20), times(b, 20))])
    assert (often.low, often.high) == (pytest.approx(once.low), pytest.approx(once.high))


def test_one_program_among_few_sessions_decides_nothing() -> None:
    people = arm(np.full(300, 4.0), np.arange(300) % 3.0)
    crowd = arm(np.full(301, 4.0), np.r_[np.arange(300) % 3.0, 0])
    program = Arm(people.sessions + 1, people.n + 3000, people.k, people.nn + 3000**2, people.nk, people.kk)
    found = mantel_haenszel([Stratum(program, crowd)])
    assert found is not None and found.value < 0.4, "it halves the click-through of its version"
    assert found.high > 1


@pytest.mark.parametrize(
    "strata",
    [
        pytest.param([], id="nothing"),
        pytest.param(
            [Stratum(singles(500, 50), Arm()), Stratum(Arm(), singles(500, 10))], id="never at one time"
        ),
        pytest.param([Stratum(singles(500, 0), singles(500, 0))], id="nobody clicked"),
    ],
)
def test_where_nothing_can_be_said(strata: list[Stratum]) -> None:
    found = mantel_haenszel(strata)
    assert found is None


@settings(deadline=None)  # the machine may be busy
@given(
    st.lists(
        st.tuples(st.integers(1, 400), st.integers(1, 400), st.floats(0, 1), st.floats(0, 1)),
        min_size=1,
        max_size=6,
    )
)
def test_the_interval_holds_its_estimate(drawn: list[tuple[int, int, float, float]]) -> None:
    strata = [Stratum(singles(m, int(m * p)), singles(n, int(n * q))) for m, n, p, q in drawn]
    found = mantel_haenszel(strata)
    if found is not None:
        assert 0 <= found.low <= found.value * (1 + 1e-9) and found.value <= found.high * (1 + 1e-9)


def test_the_critical_value_as_printed_and_never_below_a_single_look() -> None:
    """Howard et al. (2021), eq. 14, by hand at t = ρ = 500 sessions and α = 0.01: √(2 · ln(2 / 0.0001))."""
    assert critical_value(500) == pytest.approx(math.sqrt(2 * math.log(2 / 0.0001)))
    assert critical_value(0) == math.inf
    assert min(critical_value(10**x) for x in np.arange(0, 8, 0.1)) > 3.4


def test_looking_again_and_again_seldom_misleads() -> None:
    """300 pairs of equal versions with uneven sessions, where the worst of 100 looks are asked: 1 % may be wrong."""
    dice, wrong = np.random.default_rng(11), 0
    for _ in range(300):
        both = []
        for _ in range(2):
            n = 1 + dice.negative_binomial(0.7, 0.25, (100, 60)).astype(float)
            k = dice.binomial(n.astype(int), dice.beta(0.4, 2, n.shape)).astype(float)
            both.append(np.cumsum([np.full(100, 60.0), *((x * y).sum(axis=1) for x, y in
                                   ((n, 1), (k, 1), (n, n), (n, k), (k, k)))], axis=1))  # fmt: skip
        distance = both[0][2] * both[1][1] - both[1][2] * both[0][1]  # its sign is that of the difference
        for look in np.argsort(-np.abs(distance / both[0][1] ** 1.5))[:4]:  # where chance is at its worst
            mine, theirs = (Arm(int(x[0, look]), *x[1:, look]) for x in both)
            found = mantel_haenszel([Stratum(mine, theirs)])
            if not found.low <= 1 <= found.high:
                wrong += 1
                break
    assert wrong <= 3
