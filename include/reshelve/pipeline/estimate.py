"""Seconds that a stage will take, from those it took: the median over past nights, with the least and the most.

Training and tuning are scaled to what is asked for tonight and end at their limits; the other stages take what they took.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reshelve.config.ranker import Ranker
from reshelve.config.waves import rungs, waves
from reshelve.pipeline.past_nights import PastNight


@dataclass(frozen=True)
class Estimate:
    """Seconds, and of how many past nights. All three are None where no night says anything."""

    seconds: float | None
    low: float | None
    high: float | None
    nights: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Estimate:
        """The median of several nights' values."""
        if not seconds:
            return cls(None, None, None, 0)
        return cls(statistics.median(seconds), min(seconds), max(seconds), len(seconds))


NOTHING = Estimate(0.0, 0.0, 0.0, 0)


def estimate(stage: str, ranker: Ranker, nights: Sequence[PastNight], examples: int | None) -> Estimate:
    """What a stage of tonight's `ranker` takes. `examples`: how many there are to train on, where that is known."""
    if stage == "tune" and not (ranker.tuning.trials and ranker.tuning.space):
        return NOTHING
    of: Callable[[PastNight], float | None] = {
        "tune": lambda night: _tune(ranker, night, examples),
        "train": lambda night: _train(ranker, night, examples),
    }.get(stage, lambda night: night.stages.get(stage))
    return Estimate.of([seconds for night in nights if (seconds := of(night)) is not None])


def _tune(ranker: Ranker, night: PastNight, examples: int | None) -> float | None:
    """Trials of a wave run side by side; a trial costs its share of a full training, and what the shortest costs too."""
    if night.trial_seconds_per_epoch is None:
        return None
    tuning, shares = ranker.tuning, rungs(ranker.tuning)
    epoch = night.trial_seconds_per_epoch
    if night.examples:
        epoch *= _examples(ranker, night, examples) / night.examples
    rounds = [shares[wave.rung] * ranker.training.epochs * epoch for wave in waves(tuning)]
    return min(sum(rounds) + len(rounds) * night.trial_seconds_beside, tuning.max_minutes * 60)


def _train(ranker: Ranker, night: PastNight, examples: int | None) -> float | None:
    """What it took beside its steps, and the steps at the night's speed."""
    if not night.training_examples or night.training_seconds is None or "train" not in night.stages:
        return None
    wanted = _examples(ranker, night, examples) * ranker.training.epochs
    steps = wanted * night.training_seconds / night.training_examples
    beside = max(0.0, night.stages["train"] - night.training_seconds)
    return beside + min(steps, ranker.training.max_minutes * 60)


def _examples(ranker: Ranker, night: PastNight, examples: int | None) -> int:
    """How many there are to train on tonight: as many as that night had, where nothing more is known."""
    known = examples if examples is not None else night.examples or ranker.examples.max_examples
    return min(known, ranker.examples.max_examples)
