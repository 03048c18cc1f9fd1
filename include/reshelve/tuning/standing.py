"""Where tuning stands: who is in which wave, decided by the losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reshelve.config.tuning import Tuning
from reshelve.config.waves import Wave, waves
from reshelve.tuning.trial import Status, Trial


@dataclass(frozen=True)
class Standing:
    """Where tuning stands: the first wave that is not finished, its trials, and all that was finished before it."""

    wave: Wave
    ids: tuple[int, ...]
    finished: tuple[Trial, ...]
    seconds: float  # of evaluating so far, trials of one wave counted as running side by side
    machine_seconds: float  # the same, each trial counted


def standing(tuning: Tuning, trials: Sequence[Trial]) -> Standing | None:
    """Where tuning with these trials stands; None when every wave is finished. A function of its arguments alone."""
    known = {(trial.id, trial.rung): trial for trial in trials}
    finished: list[Trial] = []
    seconds = machine_seconds = 0.0
    for wave in waves(tuning):
        ids = _members(tuning, wave, known)
        here = [known[key] for key in ((identifier, wave.rung) for identifier in ids) if key in known]
        if len(here) < len(ids) or any(trial.status is Status.ASKED for trial in here):
            return Standing(wave, ids, tuple(finished), seconds, machine_seconds)
        finished += here
        seconds += max((trial.seconds for trial in here), default=0.0)
        machine_seconds += sum(trial.seconds for trial in here)
    return None


def elapsed(tuning: Tuning, trials: Sequence[Trial]) -> float:
    """Seconds of evaluating, trials of one wave counted as running side by side, whether it is finished or not."""
    known = {(trial.id, trial.rung): trial for trial in trials}
    total = 0.0
    for wave in waves(tuning):
        here = (known.get((identifier, wave.rung)) for identifier in _members(tuning, wave, known))
        total += max((trial.seconds for trial in here if trial), default=0.0)
    return total


def _members(tuning: Tuning, wave: Wave, known: dict[tuple[int, int], Trial]) -> tuple[int, ...]:
    """The ids in a wave whose earlier waves are finished."""
    if wave.rung == 0:
        return tuple(wave.bracket[wave.first : wave.last])
    below = [known.get((identifier, wave.rung - 1)) for identifier in wave.bracket]
    done = [trial for trial in below if trial and trial.loss is not None]
    best = sorted(done, key=lambda trial: (trial.loss, trial.id))
    return tuple(trial.id for trial in best[wave.first : wave.last])
