"""When a step stays, from its figures."""

from __future__ import annotations

import numpy as np
import pytest

from reshelve.compression.measure import Agreement
from reshelve.compression.measured_step import (
    AFTER,
    BEFORE,
    StepMeasurement,
    bootstrap_of_median_ratio,
    in_turn,
    shown,
    verdict,
)
from reshelve.config.compression import Distil, Int8Step
from reshelve.statistics.bootstrap import Interval

FASTER, SLOWER, OPEN = Interval(0.6, 0.55, 0.65), Interval(1.2, 1.1, 1.3), Interval(0.98, 0.9, 1.05)
EQUAL, WORSE, WIDE = Interval(0.0, -0.004, 0.004), Interval(-0.02, -0.04, -0.01), Interval(0.02, -0.05, 0.1)


@pytest.mark.parametrize(
    ("step", "spearman", "ratio", "difference", "kept", "words"),
    [
        ("int8", 0.99, FASTER, EQUAL, True, "0.60 of the time before (0.55 to 0.65)"),
        ("int8", 0.90, FASTER, EQUAL, False, "agreement 0.900 is below 0.95"),
        ("int8", 0.99, SLOWER, EQUAL, False, "not significantly faster: 1.20 of the time"),
        ("int8", 0.99, OPEN, EQUAL, False, "not significantly faster"),
        ("int8", 0.99, FASTER, WORSE, False, "it dropped significantly"),
        ("int8", 0.99, FASTER, WIDE, True, "0.60 of the time before"),
        ("distil", 0.99, FASTER, WIDE, False, "may have dropped by more than 0.01"),
        ("distil", 0.80, FASTER, EQUAL, True, "quality +0.0000"),
        ("int8", None, FASTER, EQUAL, False, "agreement cannot be told"),
        ("int8", 0.99, FASTER, None, True, "quality cannot be told: too few held-out questions"),
        ("distil", 0.99, FASTER, None, False, "quality cannot be told: too few held-out questions"),
    ],
    ids=[
        "kept",
        "ranks differently",
        "slower",
        "not surely faster",
        "worse",
        "rounded, few questions",
        "a copy, few questions",
        "a copy may score differently",
        "nothing to agree on",
        "rounded, too few questions",
        "a copy, too few questions",
    ],
)
def test_the_verdict_says_why(
    step: str, spearman: float | None, ratio: Interval, difference: Interval | None, kept: bool, words: str
) -> None:
    either = {BEFORE: 2, AFTER: 1}
    found = StepMeasurement(either, dict(either), ratio, difference, Agreement(spearman, spearman))
    criterion = {"int8": Int8Step, "distil": Distil}[step].criterion
    stays, reason = verdict(criterion, found, min_agreement=0.95, tolerance=0.01)
    assert stays is kept and words in reason
    document = shown(found, "pair")
    assert (document["agreement"], document["quality"] is None) == (spearman, difference is None)


def test_load_on_the_machine_cancels_in_the_rounds_ratios() -> None:
    load = np.random.default_rng(1).lognormal(0, 1, 40)
    found = bootstrap_of_median_ratio(list(10 * load), list(7 * load))
    assert found.value == pytest.approx(0.7) and found.low == pytest.approx(0.7)


def test_versions_are_asked_in_turn_until_the_ratio_is_plain() -> None:
    asked: list[str] = []

    def ask(name: str, number: int) -> float:
        asked.append(name)
        return (4.0 if name == BEFORE else 1.0) + 0.1 * (number % 3)

    times = in_turn(ask, {BEFORE: [], AFTER: []})
    assert len(times[BEFORE]) == len(times[AFTER]) == 20, "four times faster needs no more rounds"
    rounds = list(zip(asked[2::2], asked[3::2], strict=True))
    assert set(rounds) == {(BEFORE, AFTER), (AFTER, BEFORE)}, "neither is always first"
