"""Which weights a job keeps: the last, the best validated, or their moving average; and when to stop for want of better."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from reshelve.config.ranker import Training
from reshelve.kind_registry import kind_of
from reshelve.training.checkpoint import TrainingPosition

Weights = dict[str, Tensor]
Found = dict[str, float]  # a validation: loss and metric


class Keeper:
    """Watches the validations of one job on rank 0. What it knows of them is in the job's `place` and checkpoint."""

    def __init__(
        self,
        kind: str,
        training: Training,
        place: TrainingPosition,
        best: Weights,
        weights: Callable[[], Weights],
    ) -> None:
        self._metric = kind_of(kind).learning.metric
        self._patience = training.patience
        self._place, self._weights = place, weights
        self.best = best

    def validated(self, step: int, found: Found) -> None:
        """Note a validation; with `patience`, better weights than any before are put aside."""
        if self._patience is None:
            return
        if not self._place.best or self.better(found, self._place.best["found"]):
            self._place.best, self._place.stale = {"step": step, "found": found}, 0
            self.best = {name: value.detach().cpu().clone() for name, value in self._weights().items()}
        else:
            self._place.stale += 1

    @property
    def exhausted(self) -> bool:
        """Whether nothing got better for as long as `patience` lasts."""
        return self._patience is not None and self._place.stale >= self._patience

    def better(self, one: Found, other: Found) -> bool:
        """By the ranking metric; where it is equal, or no list has one, by the loss."""
        return self._key(one) > self._key(other)

    def _key(self, found: Found) -> tuple[float, float]:
        return found.get(self._metric, 0.0), -found["loss"]

    def last_or_best(self, step: int, last: Found) -> tuple[Weights, Found, dict[str, Any]]:
        """The weights to save, their validation, and what they are."""
        if self.best and not self.better(last, self._place.best["found"]):
            best = self._place.best
            return self.best, best["found"], {"weights": "best", "step": best["step"]}
        return self._weights(), last, {"weights": "last", "step": step}
