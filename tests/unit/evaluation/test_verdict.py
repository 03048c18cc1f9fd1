from __future__ import annotations

import pytest

from reshelve.evaluation.verdict import Champion, Comparison, GateOutcome, decide
from reshelve.statistics.bootstrap import Interval

BETTER, UNSURE, WORSE = Interval(0.05, 0.02, 0.08), Interval(0.01, -0.02, 0.04), Interval(-0.05, -0.08, -0.02)
EQUAL = Interval(0.0, 0.0, 0.0)
SLIGHTLY_WORSE = Interval(-0.003, -0.009, 0.003)
SURELY_WITHIN = Interval(-0.004, -0.008, -0.001)
SURELY_BAD, PERHAPS_BAD = Interval(-0.2, -0.3, -0.06), Interval(-0.2, -0.4, 0.01)
NO_SCORES = "none"


def judged(
    *, baseline=BETTER, champion=None, newer=False, slices=None, slice_tolerance=0.05, error=None, broken=0
):
    serving = None
    if champion or newer:
        serving = Champion(20110829001, Comparison("champion", 0.2, champion) if champion else None)
    return decide(
        metric="recall@20",
        baselines=[Comparison("popularity", 0.1, baseline)],
        champion=serving,
        tolerance=0.01,
        slices=[Comparison(name, 0.3, difference) for name, difference in (slices or {}).items()],
        slice_tolerance=slice_tolerance,
        calibration_error=error if isinstance(error, Interval) else None,
        max_calibration_error=0.1 if error else None,
        broken=broken,
    )


@pytest.mark.parametrize(
    ("case", "verdict", "reason"),
    [
        pytest.param({}, GateOutcome.PROMOTE, "no version of this kind serves yet", id="first-night"),
        pytest.param(
            {"baseline": UNSURE}, GateOutcome.HOLD, "not shown to be better", id="unsure-of-baseline"
        ),
        pytest.param(
            {"baseline": WORSE}, GateOutcome.REJECT, "no better than the baseline", id="below-baseline"
        ),
        pytest.param(
            {"baseline": EQUAL}, GateOutcome.REJECT, "no better than the baseline", id="the-baseline-itself"
        ),
        pytest.param(
            {"champion": BETTER}, GateOutcome.PROMOTE, "better than the champion", id="beats-champion"
        ),
        pytest.param(
            {"champion": EQUAL}, GateOutcome.PROMOTE, "within 0.01 of the champion", id="equals-champion"
        ),
        pytest.param({"champion": SLIGHTLY_WORSE}, GateOutcome.PROMOTE, "within 0.01", id="within-tolerance"),
        pytest.param(
            {"champion": SURELY_WITHIN}, GateOutcome.PROMOTE, "within 0.01", id="worse-within-tolerance"
        ),
        pytest.param(
            {"champion": UNSURE}, GateOutcome.HOLD, "may be worse than the champion", id="unsure-of-champion"
        ),
        pytest.param({"champion": WORSE}, GateOutcome.REJECT, "worse than the champion", id="below-champion"),
        pytest.param(
            {"newer": True}, GateOutcome.HOLD, "newer partition", id="champion-of-a-newer-partition"
        ),
        pytest.param({"broken": 3}, GateOutcome.REJECT, "3 answers have a score", id="not-a-number"),
        pytest.param(
            {"champion": BETTER, "slices": {"item/new": SURELY_BAD, "query/tail": BETTER}},
            GateOutcome.REJECT,
            "slice item/new is worse than the champion by more than 0.05",
            id="one-slice-pays",
        ),
        pytest.param(
            {"champion": BETTER, "slices": {"item/new": PERHAPS_BAD, "query/tail": BETTER}},
            GateOutcome.PROMOTE,
            "no slice is significantly worse than the champion by more than 0.05 (2 checked)",
            id="a-slice-in-doubt",
        ),
        pytest.param(
            {"champion": BETTER, "slices": {"item/new": SURELY_BAD}, "slice_tolerance": None},
            GateOutcome.PROMOTE,
            "better than the champion",
            id="slices-only-reported",
        ),
        pytest.param(
            {"error": Interval(0.08, 0.05, 0.12)},
            GateOutcome.PROMOTE,
            "calibrated within 0.1",
            id="calibrated",
        ),
        pytest.param(
            {"error": Interval(0.12, 0.09, 0.2)},
            GateOutcome.HOLD,
            "may not be calibrated",
            id="unsure-of-calibration",
        ),
        pytest.param(
            {"error": Interval(0.2, 0.15, 0.3)},
            GateOutcome.REJECT,
            "not calibrated within 0.1",
            id="not-calibrated",
        ),
        pytest.param(
            {"error": NO_SCORES}, GateOutcome.HOLD, "could be measured on", id="nothing-to-calibrate"
        ),
        pytest.param(
            {"baseline": UNSURE, "champion": WORSE},
            GateOutcome.REJECT,
            "not shown",
            id="the-worst-part-decides",
        ),
        pytest.param(
            {"baseline": WORSE, "champion": BETTER},
            GateOutcome.REJECT,
            "no better",
            id="champion-below-baseline",
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


def test_each_slice_that_pays_is_named_with_its_numbers():
    reasons = judged(champion=BETTER, slices={"item/new": SURELY_BAD, "query/tail": SURELY_BAD}).reasons
    assert reasons[2] == (
        "slice item/new is worse than the champion by more than 0.05: "
        "-0.2000 (95 % interval -0.3000 to -0.0600) in recall@20 against 0.3000"
    )
    assert reasons[3].startswith("slice query/tail ")


def test_without_slices_or_a_bound_nothing_is_said_of_them():
    assert not [said for said in judged(champion=BETTER).reasons if "slice" in said or "calibrat" in said]


def test_nothing_to_beat_is_still_a_verdict():
    assert decide(metric="map@5", baselines=[], champion=None, tolerance=0.0).verdict is GateOutcome.PROMOTE
