"""Promote, hold or roll back: tables of what callers measured, and how often chance alone would take a canary back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reshelve.config.rollout import CanaryClicks, Release
from reshelve.protocol.traffic import Counts, Meter, bucket, merged, upper_bound
from reshelve.rollout.canary_analysis import (
    StepAnalysis,
    StepOutcome,
    judge_canary,
    judge_clicks,
    with_clicks,
)
from reshelve.statistics.rates import newcombe, wilson
from reshelve.statistics.stratified import Arm, Stratum

RULES = Release.model_validate({"canary": {"min_requests": 200}})


def counts(requests: int, failed: int = 0, milliseconds: float = 10.0, seed: int = 1) -> Counts:
    made = Counts()
    times = np.random.default_rng(seed).lognormal(np.log(milliseconds), 0.3, requests)
    for number, time in enumerate(times):
        made.add(float(time), "TooSlowError" if number < failed else None)
    return made


@pytest.mark.parametrize(
    ("stable", "canary", "verdict", "words"),
    [
        pytest.param(counts(4000), counts(199), StepOutcome.HOLD, "too few", id="too few of the canary"),
        pytest.param(counts(100), counts(900), StepOutcome.HOLD, "too few", id="too few of stable"),
        pytest.param(counts(4000), counts(400), StepOutcome.PROMOTE, "", id="alike"),
        pytest.param(counts(4000, 8), counts(400), StepOutcome.PROMOTE, "", id="better"),
        pytest.param(counts(4000), counts(400, 40), StepOutcome.ROLL_BACK, "error rate", id="a tenth fails"),
        pytest.param(
            counts(4000), counts(400, 1), StepOutcome.HOLD, "inconclusive", id="one fails: who knows"
        ),
        pytest.param(counts(4000), counts(9000, 2), StepOutcome.PROMOTE, "", id="two of many fail"),
        pytest.param(counts(4000), counts(400, 0, 30), StepOutcome.ROLL_BACK, "p95", id="three times slower"),
        pytest.param(
            counts(4000), counts(400, 0, 14.5), StepOutcome.HOLD, "inconclusive", id="perhaps too slow"
        ),
        pytest.param(
            counts(4000), counts(400, 400), StepOutcome.ROLL_BACK, "error rate", id="nothing answers"
        ),
    ],
)
def test_a_canary_is_judged(stable: Counts, canary: Counts, verdict: StepOutcome, words: str) -> None:
    found = judge_canary(stable, canary, RULES)
    assert found.verdict is verdict and words in found.reason, found
    assert found.evidence["requests"] == {"stable": stable.requests, "canary": canary.requests}


def test_an_equal_canary_is_seldom_taken_back_by_chance() -> None:
    """Looked at whenever its requests double, as a release looks; 5 % of all requests fail, on both."""
    generator = np.random.default_rng(7)
    taken_back = 0
    for _ in range(400):
        mine = generator.random(6400) < 0.05
        theirs = generator.random(64000) < 0.05
        for look in (200, 400, 800, 1600, 3200, 6400):
            _, low, _ = newcombe(int(mine[:look].sum()), look, int(theirs[: 10 * look].sum()), 10 * look)
            if low > 0.005:
                taken_back += 1
                break
    assert taken_back <= 8  # 2 %


def sessions(count: int, clicks: int) -> Arm:
    """Each asks once."""
    return Arm(count, count, clicks, count, clicks, clicks)


@pytest.mark.parametrize(
    ("canary", "stable", "overdue", "verdict", "words"),
    [
        pytest.param(
            (999, 99),
            (9000, 900),
            True,
            StepOutcome.HOLD,
            "too few sessions: 999 sessions of the canary",
            id="too few of the canary",
        ),
        pytest.param(
            (9000, 900), (999, 99), True, StepOutcome.HOLD, "too few sessions", id="too few of stable"
        ),
        pytest.param((9000, 0), (9000, 0), True, StepOutcome.HOLD, "nobody clicked", id="nobody clicked"),
        pytest.param(
            (9000, 1200), (9000, 1800), False, StepOutcome.ROLL_BACK, "lower by", id="a third fewer"
        ),
        pytest.param((3000, 560), (3000, 600), False, StepOutcome.HOLD, "inconclusive", id="perhaps fewer"),
        pytest.param(
            (3000, 560), (3000, 600), True, StepOutcome.HOLD, "inconclusive", id="perhaps fewer, after days"
        ),
        pytest.param((3000, 590), (3000, 600), False, StepOutcome.HOLD, "inconclusive", id="about as many"),
        pytest.param(
            (3000, 590),
            (3000, 600),
            True,
            StepOutcome.PROMOTE,
            "estimate +1.7%",
            id="about as many, after days",
        ),
        pytest.param(
            (90_000, 18_000), (90_000, 18_000), False, StepOutcome.PROMOTE, "", id="surely no fewer"
        ),
        pytest.param((3000, 900), (3000, 600), False, StepOutcome.PROMOTE, "", id="more"),
    ],
)
def test_clicks_are_judged(
    canary: tuple[int, int], stable: tuple[int, int], overdue: bool, verdict: StepOutcome, words: str
) -> None:
    rules = CanaryClicks(max_drop=0.05, min_sessions=1000)
    found = judge_clicks([Stratum(sessions(*canary), sessions(*stable))], rules, overdue=overdue)
    assert found.verdict is verdict and words in found.reason, found
    assert found.evidence["sessions"] == {"stable": stable[0], "canary": canary[0]}


@pytest.mark.parametrize(
    ("served", "clicked", "both"),
    [
        (StepOutcome.PROMOTE, StepOutcome.PROMOTE, StepOutcome.PROMOTE),
        (StepOutcome.PROMOTE, StepOutcome.HOLD, StepOutcome.HOLD),
        (StepOutcome.HOLD, StepOutcome.ROLL_BACK, StepOutcome.ROLL_BACK),
        (StepOutcome.ROLL_BACK, StepOutcome.PROMOTE, StepOutcome.ROLL_BACK),
    ],
)
def test_the_worst_of_a_step_s_parts_decides(
    served: StepOutcome, clicked: StepOutcome, both: StepOutcome
) -> None:
    found = with_clicks(
        StepAnalysis(served, "served", {"requests": 1}), StepAnalysis(clicked, "clicked", {"sessions": 2})
    )
    assert (
        found.verdict is both
        and found.evidence["clicks"] == {"sessions": 2}
        and found.evidence["requests"] == 1
    )
    worst = {name for name, one in (("served", served), ("clicked", clicked)) if one is both}
    assert worst <= set(found.reason.split("; "))


def test_only_a_canary_can_be_held_for_its_clicks() -> None:
    with pytest.raises(ValueError, match=r"canary\.clicks\.max_drop\n  only a canary's sessions"):
        Release.model_validate({"canary": {"clicks": {"max_drop": 0.05}}})
    assert Release().canary.clicks.max_drop is None  # type: ignore[call-arg]


@settings(deadline=None)  # the machine may be busy
@given(st.integers(0, 500), st.integers(1, 500))
def test_wilson_holds_the_rate(hits: int, more: int) -> None:
    count = hits + more
    _, low, high = wilson(hits, count)
    assert 0 <= low <= hits / count + 1e-12 and hits / count - 1e-12 <= high <= 1


def test_newcombe_as_printed() -> None:
    """Newcombe (1998), table II: 56/70 and 48/80 by method 10, at 95 %: 0.0524 to 0.3339."""
    value, low, high = newcombe(56, 70, 48, 80, 1.96)
    assert value == pytest.approx(0.2)
    assert (round(low, 4), round(high, 4)) == (0.0524, 0.3339)


@settings(deadline=None)  # the machine may be busy
@given(st.floats(0.1, 60_000))
def test_a_bucket_holds_its_latency(milliseconds: float) -> None:
    number = bucket(milliseconds)
    assert upper_bound(number - 1) * 0.999 <= milliseconds <= upper_bound(number) * 1.001


def test_a_quantile_lies_in_its_interval() -> None:
    found = counts(2000).p95
    assert found is not None and found.low <= found.value <= found.high
    assert found.low <= 10 * np.exp(0.3 * 1.645) <= found.high * 1.05


def test_a_step_is_judged_on_its_own_requests() -> None:
    one, two = Meter("a"), Meter("b")
    one.add(3, 7, 1.0)
    one.add(5, 7, 1.0)
    two.add(6, 7, None, "TooSlowError")
    two.add(6, 8, 2.0)
    found = merged([one.report(), two.report()], since=5)
    assert (found[7].requests, found[7].failed, found[8].requests) == (2, 1, 1)
    assert merged([one.report()], since=1)[7].requests == 2
