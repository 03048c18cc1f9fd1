"""Promote, hold or reject: from numbers to a verdict, with the reasons in words. Pure functions.

The rules, in one place:
- baseline in `gates.beats`: the interval of the paired difference must lie above 0. Wholly at or below 0 is a
  reject; across 0 is a hold, since that slice cannot tell the two apart.
- any other baseline: no rule, but one that is surely better is named among the reasons, so that nobody takes a
  promotion for more than it is.
- champion: promote where the difference may not have fallen below −tolerance (its lower bound), reject where it
  surely has (its upper bound), hold between. The first night has no champion, and the baselines decide.
- a champion of a newer partition may have been trained on this very slice: no comparison, and at best a hold.
- slices: none that has enough questions may surely be worse than the champion by more than `gates.slice_tolerance`
  (the upper bound of its difference); one that is, is a reject. Doubt is no objection here: of many small slices one
  is always in doubt.
- calibration: an expected calibration error above `gates.max_calibration_error` is a hold, and a reject where its
  whole interval lies above.
- fewer than LEAST_CLUSTERS clusters are a hold at best: intervals from so few are too narrow to be believed.
- a score that is not a number is a reject.
The verdict is the worst of its parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from reshelve.notation import plain
from reshelve.statistics.bootstrap import LEAST_CLUSTERS
from reshelve.statistics.interval import Interval


class GateOutcome(StrEnum):
    """What the gate answers."""

    PROMOTE = "promote"
    HOLD = "hold"
    REJECT = "reject"


_SEVERITY = [GateOutcome.PROMOTE, GateOutcome.HOLD, GateOutcome.REJECT]


@dataclass(frozen=True)
class Comparison:
    """A rival on the same queries: its own value, and challenger minus rival."""

    name: str
    value: float
    difference: Interval


@dataclass(frozen=True)
class Champion:
    """The version that serves. Without a comparison where none would be fair."""

    version: int
    comparison: Comparison | None


@dataclass(frozen=True)
class GateDecision:
    """The verdict and one reason per part, in the order they were looked at."""

    verdict: GateOutcome
    reasons: list[str]


def decide(
    *,
    metric: str,
    baselines: Sequence[Comparison],
    others: Sequence[Comparison] = (),
    champion: Champion | None,
    tolerance: float,
    slices: Sequence[Comparison] = (),
    slice_tolerance: float | None = None,
    calibration_error: Interval | None = None,
    max_calibration_error: float | None = None,
    broken: int = 0,
    clusters: int = LEAST_CLUSTERS,
    candidates: Mapping[str, float] | None = None,
    least_candidates: Mapping[str, float] | None = None,
) -> GateDecision:
    """The verdict on a challenger. `baselines` are those it must beat, `others` are reported; `broken` counts answers that are no numbers,
    `clusters` those that the questions come from.

    `candidates`: the shares of the exhaustive answer that a version finds which answers from candidates, by depth, and
    `least_candidates` what they have to be. `slices` are those with enough questions, against the champion. A rule whose bound is None is not applied.
    """
    parts = [_against_baseline(metric, rival) for rival in baselines]
    parts += [
        (
            GateOutcome.PROMOTE,
            f"loses to {_than(metric, rival)}, which gates.beats does not require it to beat",
        )
        for rival in others
        if rival.difference.high < 0
    ]
    if broken:
        parts.append((GateOutcome.REJECT, f"{broken} answers have a score that is not a finite number"))
    if clusters < LEAST_CLUSTERS:
        parts.append((GateOutcome.HOLD, _too_few(clusters)))
    if champion is None:
        parts.append(
            (GateOutcome.PROMOTE, "no version of this kind serves yet: there is no champion to compare with")
        )
    elif champion.comparison is None:
        parts.append(
            (
                GateOutcome.HOLD,
                f"champion {champion.version} is of a newer partition and may have been trained on these "
                "questions: not compared",
            )
        )
    else:
        parts.append(_against_champion(metric, champion.version, champion.comparison, tolerance))
    if slices and slice_tolerance is not None:
        parts += _slices(metric, slices, slice_tolerance)
    parts += [
        (
            GateOutcome.HOLD,
            f"candidates miss too much: {name} of the exhaustive answer is {found:.4f}, and {least:g} is the least",
        )
        for name, least in (least_candidates or {}).items()
        if (found := (candidates or {}).get(name, 1.0)) < least
    ]
    if max_calibration_error is not None:
        parts.append(_calibrated(calibration_error, max_calibration_error))
    worst = max((verdict for verdict, _ in parts), key=_SEVERITY.index)
    return GateDecision(worst, [reason for _, reason in parts])


def _too_few(clusters: int) -> str:
    return (
        f"too few to say: the questions come from {clusters} baskets, queries or sessions, and {LEAST_CLUSTERS} are the least "
        "(data.holdout_partitions or gates.max_queries bring more)"
    )


def _against_baseline(metric: str, rival: Comparison) -> tuple[GateOutcome, str]:
    said = f"{_difference(rival.difference)} in {metric} against {rival.name} ({rival.value:.4f})"
    if rival.difference.low > 0:
        return GateOutcome.PROMOTE, f"better than the baseline: {said}"
    if rival.difference.high <= 0:
        return GateOutcome.REJECT, f"no better than the baseline: {said}"
    return GateOutcome.HOLD, f"not shown to be better than the baseline: {said}"


def _than(metric: str, rival: Comparison) -> str:
    return f"{rival.name} ({rival.value:.4f}), {_difference(rival.difference)} in {metric}"


def _against_champion(
    metric: str, version: int, rival: Comparison, tolerance: float
) -> tuple[GateOutcome, str]:
    said = f"{_difference(rival.difference)} in {metric} against champion {version} ({rival.value:.4f})"
    if rival.difference.low >= -tolerance:
        better = "better than" if rival.difference.low > 0 else f"within {plain(tolerance)} of"
        return GateOutcome.PROMOTE, f"{better} the champion: {said}"
    if rival.difference.high < -tolerance:
        return GateOutcome.REJECT, f"worse than the champion by more than {plain(tolerance)}: {said}"
    return GateOutcome.HOLD, f"may be worse than the champion by more than {plain(tolerance)}: {said}"


def _slices(metric: str, slices: Sequence[Comparison], tolerance: float) -> list[tuple[GateOutcome, str]]:
    worse = [rival for rival in slices if rival.difference.high < -tolerance]
    if not worse:
        said = (
            f"no slice is significantly worse than the champion by more than {plain(tolerance)} "
            f"({len(slices)} checked)"
        )
        return [(GateOutcome.PROMOTE, said)]
    return [
        (
            GateOutcome.REJECT,
            f"slice {rival.name} is worse than the champion by more than {plain(tolerance)}: "
            f"{_difference(rival.difference)} in {metric} against {rival.value:.4f}",
        )
        for rival in worse
    ]


def _calibrated(error: Interval | None, most: float) -> tuple[GateOutcome, str]:
    if error is None:
        return GateOutcome.HOLD, "no answer has a score that calibration could be measured on"
    said = f"calibration error {error.value:.4f} (95 % interval {error.low:.4f} to {error.high:.4f})"
    if error.value <= most:
        return GateOutcome.PROMOTE, f"calibrated within {plain(most)}: {said}"
    if error.low <= most:
        return GateOutcome.HOLD, f"may not be calibrated within {plain(most)}: {said}"
    return GateOutcome.REJECT, f"not calibrated within {plain(most)}: {said}"


def _difference(interval: Interval) -> str:
    return f"{interval.value:+.4f} (95 % interval {interval.low:+.4f} to {interval.high:+.4f})"
