"""What customers did with what they got, day by day, and whether a version is clicked less than the one that it came after.

Only sessions that could have got either version are compared: those of the canary's time (`serving.concurrent`). A version that
was released without a canary is compared with nothing: the version before it served at another time, and night is no measure for
day. Its click-through is shown, and never acted on.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import numpy as np

from reshelve.errors import DataError
from reshelve.evaluation.calibration import Predictions, expected_calibration_error
from reshelve.logs import logger
from reshelve.monitoring.checks import judged
from reshelve.monitoring.collect import Collected
from reshelve.monitoring.observations import Condition, Finding
from reshelve.monitoring.watch_state import Memory
from reshelve.rollout import canary_analysis
from reshelve.rollout.click_step import release_clicks, usable_verdicts
from reshelve.rollout.clicked import ClickedDay, Joined, join_day
from reshelve.rollout.concurrent import release_windows
from reshelve.store.layout import requests_of
from reshelve.store.objects import ObjectStore
from reshelve.validation.verdicts import PartitionVerdict, read_verdict

_SEED = 7
_LEAST = 200  # joined requests of a version that is worth a word, and sessions of one that is compared


def join_clicks(
    store: ObjectStore, seen: Collected, memory: Memory
) -> tuple[date | None, tuple[Joined, ...], dict[str, float]]:
    """Join the oldest day that can be and was not; (the day or None, each version of it, measured numbers)."""
    ranker = seen.ranker
    if seen.verdict is None:  # nothing was ever validated
        return None, (), {}
    for day in _days(store, ranker.name, memory.joined):
        verdict = read_verdict(store, ranker.data.source, day)
        if verdict is None or not verdict.usable:
            if seen.verdict.partition > day and verdict is not None:
                memory.joined = day  # stopped: its clicks are not to be believed
            continue
        memory.joined = day
        try:
            found, finding = _look(store, seen, verdict)
        except DataError as error:  # it would be as damaged at every look, and stop them all
            logger(ranker=ranker.name).error(error.headline, problem=error.detail)
            continue
        if found is None:
            continue
        judged(memory, "clicks", finding)
        logger(ranker=ranker.name).info("clicks joined", day=str(day), versions=len(found.joined))
        return day, found.joined, _calibration(found.scored)
    return None, (), {}


def _days(store: ObjectStore, ranker: str, after: date | None) -> list[date]:
    found = []
    for folder in store.folders(requests_of(ranker)):
        day = date.fromisoformat(folder.removeprefix("dt="))
        if after is None or day > after:
            found.append(day)
    return found


def _look(
    store: ObjectStore, seen: Collected, verdict: PartitionVerdict
) -> tuple[ClickedDay | None, Finding | None]:
    """The day, and what is found of the release whose canary had sessions on it: in all its days until this one."""
    day, pointer = verdict.partition, seen.pointer
    for version in (pointer.canary, pointer.stable):
        windows = [] if version is None else release_windows(store, pointer, version)
        if not any(day in window.days(seen.now.date()) for window in windows):
            continue
        clicks = release_clicks(
            store, seen.ranker, windows, usable_verdicts(store, seen.ranker, windows, day)
        )
        if day not in clicks.days:
            return None, None
        rules = seen.ranker.release.canary.clicks.model_copy(
            update={"max_drop": seen.ranker.watch.max_click_drop, "min_sessions": _LEAST}
        )
        found = canary_analysis.judge_clicks(clicks.strata, rules)
        return clicks.days[day], _finding(seen, windows[-1].canary, windows[-1].stable, found)
    joined = join_day(store, seen.ranker, verdict)
    return joined, None if joined is None else _apart(joined.joined)


def _finding(
    seen: Collected, version: int, other: int, found: canary_analysis.StepAnalysis
) -> Finding | None:
    """A canary is withdrawn; a version that became stable goes back to the one it was compared with, and to no other."""
    if found.verdict is not canary_analysis.StepOutcome.ROLL_BACK:
        return None
    pointer, condition = seen.pointer, Condition.ODD
    if version == pointer.canary:
        condition = Condition.BAD_CANARY
    elif (version, other) == (pointer.stable, pointer.previous):
        condition = Condition.BAD_VERSION
    reason = f"version {version} beside {other}, in sessions that could have got either: {found.reason}"
    return Finding(
        condition=condition, check="clicks", version=version, reason=reason, evidence=found.evidence
    )


def _apart(joined: Sequence[Joined]) -> Finding | None:
    """Versions that served on one day, each at its own time: said, so that nobody compares them."""
    enough = [one for one in joined if one.clickable >= _LEAST]
    if len(enough) < 2:
        return None
    rates = ", ".join(f"{one.version}: {one.clicks / one.clickable:.1%} of {one.clickable}" for one in enough)
    reason = (
        f"click-through is not comparable: no session could have got either version ({rates}, at "
        "different times); a release with a canary (release.canary.shares) would make it so"
    )
    evidence = {"clicks": {one.version: [one.clicks, one.clickable] for one in enough}}
    return Finding(
        condition=Condition.INCONCLUSIVE,
        check="clicks",
        version=enough[-1].version,
        reason=reason,
        evidence=evidence,
    )


def _calibration(scored: Sequence[tuple[float, bool, str]]) -> dict[str, float]:
    """The expected calibration error of the first items' scores, where they are probabilities."""
    if len(scored) < _LEAST or not all(0 <= score <= 1 for score, _, _ in scored):
        return {}
    score, first, session = zip(*scored, strict=True)
    found = expected_calibration_error(
        Predictions(np.array(score, dtype=float), np.array(first, dtype=bool), np.ones(len(scored)), session),
        _SEED,
    )
    return {} if found is None else {"calibration_error": round(found.value, 4)}
