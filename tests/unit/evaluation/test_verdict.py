from __future__ import annotations

import pytest

from reshelve.evaluation.bootstrap import Interval
from reshelve.evaluation.verdict import Champion, Comparison, Verdict, decide

BETTER, UNSURE, WORSE = Interval(0.05, 0.02, 0.08), Interval(0.01, -0.02, 0.04), Interval(-0.05, -0.08, -0.02)
EQUAL = Interval(0.0, 0.0, 0.0)
SLIGHTLY_WORSE = Interval(-0.003, -0.009, 0.003)
SURELY_WITHIN = Interval(-0.004, -0.008, -0.001)


def judged(*, baseline=BETTER, champion=None, newer=False, broken=0):
    serving = None
    if champion or newer:
        serving = Champion(20110829001, Comparison("champion", 0.2, champion) if champion else None)
    return decide(
        metric="recall@20",
        baselines=[Comparison("popularity", 0.1, baseline)],
        champion=serving,
        tolerance=0.01,
        broken=broken,
    )


@pytest.mark.parametrize(
    ("case", "verdict", "reason"),
    [
        pytest.param({}, Verdict.PROMOTE, "no version serves yet", id="first-night"),
        pytest.param({"baseline": UNSURE}, Verdict.HOLD, "not shown to be better", id="unsure-of-baseline"),
        pytest.param({"baseline": WORSE}, Verdict.REJECT, "no better than the baseline", id="below-baseline"),
        pytest.param(
            {"baseline": EQUAL}, Verdict.REJECT, "no better than the baseline", id="the-baseline-itself"
        ),
        pytest.param({"champion": BETTER}, Verdict.PROMOTE, "better than the champion", id="beats-champion"),
        pytest.param(
            {"champion": EQUAL}, Verdict.PROMOTE, "within 0.01 of the champion", id="equals-champion"
        ),
        pytest.param({"champion": SLIGHTLY_WORSE}, Verdict.PROMOTE, "within 0.01", id="within-tolerance"),
        pytest.param(
            {"champion": SURELY_WITHIN}, Verdict.PROMOTE, "within 0.01", id="worse-within-tolerance"
        ),
        pytest.param(
            {"champion": UNSURE}, Verdict.HOLD, "may be worse than the champion", id="unsure-of-champion"
        ),
        pytest.param({"champion": WORSE}, Verdict.REJECT, "worse than the champion", id="below-champion"),
        pytest.param({"newer": True}, Verdict.HOLD, "newer partition", id="champion-of-a-newer-partition"),
        pytest.param({"broken": 3}, Verdict.REJECT, "3 answers hold a score", id="not-a-number"),
        pytest.param(
            {"baseline": UNSURE, "champion": WORSE}, Verdict.REJECT, "not shown", id="the-worst-part-decides"
        ),
        pytest.param(
            {"baseline": WORSE, "champion": BETTER}, Verdict.REJECT, "no better", id="champion-below-baseline"
        ),
    ],
)
def test_the_verdict_and_its_reason(case, verdict, reason):
    decision = judged(**case)
    assert decision.verdict is verdict
    assert any(reason in said for said in decision.reasons), decision.reasons


def test_a_reason_shows_the_numbers():
    assert judged(champion=UNSURE).reasons[1] == (
        "may be worse than the champion by more than 0.01: +0.0100 (95 % interval -0.0200 to +0.0400) "
        "in recall@20 against champion 20110829001 (0.2000)"
    )


def test_nothing_to_beat_is_still_a_verdict():
    assert decide(metric="map@5", baselines=[], champion=None, tolerance=0.0).verdict is Verdict.PROMOTE
