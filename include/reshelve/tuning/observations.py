"""What TPE is shown: losses of one budget, each as its distance from the best of its own night.

Two budgets or two nights have losses of different height, and TPE only ever asks which points are the best. See
docs/decisions/0090 and 0091.
"""

from __future__ import annotations

from collections.abc import Sequence

from reshelve.config.yaml_models import Form
from reshelve.tuning.trial import Draws, Status, Trial


class TrialObservation(Form):
    """A point and its loss; None where the trial failed."""

    draws: Draws
    loss: float | None


def observations(trials: Sequence[Trial]) -> list[TrialObservation]:
    """What one night has to tell: every trial at the first rung, where all of them were, by id.

    A loss is relative: (loss - best) / |best|, so 0 is the night's best. Trials that the budget stopped tell nothing.
    """
    first = sorted((trial for trial in trials if trial.rung == 0), key=lambda trial: trial.id)
    losses = [trial.loss for trial in first if trial.loss is not None]
    best = min(losses, default=0.0)
    unit = abs(best) or 1.0
    return [
        TrialObservation(draws=trial.draws, loss=None if trial.loss is None else (trial.loss - best) / unit)
        for trial in first
        if trial.status in (Status.DONE, Status.FAILED)
    ]
