"""Rankers compared on the same held-out questions, pair by pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from reshelve.evaluation.bootstrap import Interval, bootstrap
from reshelve.evaluation.metrics import Metric
from reshelve.evaluation.verdict import Comparison
from reshelve.examples.formats import HoldoutQuery

Lists = Sequence[Sequence[str]]  # a ranked list for each question


@dataclass(frozen=True)
class HeldOut:
    """The Q held-out questions and the means to compare rankers on them; the first of `metrics` is the gate's."""

    queries: list[HoldoutQuery]
    metrics: list[Metric]
    seed: int

    @cached_property
    def weights(self) -> np.ndarray:
        """float64[Q]; 0 for a question that no order answers better than another."""
        return np.array([query.weight * query.orders for query in self.queries], dtype=np.float64)

    @cached_property
    def clusters(self) -> np.ndarray:
        """object[Q]: questions of one cluster rise and fall together."""
        return np.array([query.cluster for query in self.queries], dtype=object)

    def values(self, ranked: Lists, metric: Metric | None = None) -> np.ndarray:
        """float64[Q]: a metric of each question, the gate's where none is named."""
        chosen = metric or self.metrics[0]
        pairs = zip(ranked, self.queries, strict=True)
        return np.array([chosen.of(items, query.gain) for items, query in pairs])

    def _asked(self, where: np.ndarray | None) -> np.ndarray:
        asked = self.weights > 0
        return asked if where is None else asked & where

    def interval(self, values: np.ndarray, where: np.ndarray | None = None) -> Interval:
        """The weighted mean of values, with its 95 % interval; of the questions in `where` (bool[Q])."""
        inside = self._asked(where)
        return bootstrap(values[inside], self.weights[inside], self.clusters[inside], self.seed)

    def mean(self, values: np.ndarray, where: np.ndarray | None = None) -> float:
        """The weighted mean alone."""
        inside = self._asked(where)
        return float(np.average(values[inside], weights=self.weights[inside]))

    def compare(
        self, name: str, challenger: np.ndarray, rival: np.ndarray, where: np.ndarray | None = None
    ) -> Comparison:
        """Challenger minus rival, paired, from the values of each question."""
        return Comparison(name, self.mean(rival, where), self.interval(challenger - rival, where))

    def all_metrics(self, ranked: Lists) -> dict[str, float]:
        """The gate's metric and those reported beside it."""
        return {str(metric): self.mean(self.values(ranked, metric)) for metric in self.metrics}
