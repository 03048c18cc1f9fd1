"""Rankers compared on the same held-out questions, pair by pair."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from reshelve.evaluation.metrics import Metric
from reshelve.evaluation.verdict import Comparison
from reshelve.examples.formats import HoldoutQuery
from reshelve.statistics.bootstrap import bootstrap
from reshelve.statistics.interval import Interval

Lists = Sequence[Sequence[str]]  # a ranked list for each question


@dataclass(frozen=True)
class HeldOut:
    """The Q held-out questions and the means to compare rankers on them; the first of `metrics` is the gate's."""

    queries: list[HoldoutQuery]
    metrics: list[Metric]
    seed: int

    @property
    def metric(self) -> Metric:
        """The gate's."""
        return self.metrics[0]

    @cached_property
    def digest(self) -> str:
        """Which questions these are: figures of two digests are not comparable."""
        asked = sorted((query.query_id, query.text) for query in self.queries)
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:12]

    @cached_property
    def weights(self) -> np.ndarray:
        """float64[Q]; 0 for a question that no order answers better than another."""
        return np.array([query.weight * query.orders for query in self.queries], dtype=np.float64)

    @cached_property
    def clusters(self) -> np.ndarray:
        """object[Q]: questions of one cluster rise and fall together."""
        return np.array([query.cluster for query in self.queries], dtype=object)

    def values(self, ranked: Lists, metric: Metric | None = None) -> np.ndarray:
        """float64[Q]: a metric of each question, the gate's where none is named; NaN where it is undefined."""
        chosen = metric or self.metric
        pairs = zip(ranked, self.queries, strict=True)
        return np.array([chosen.of(items, query.gain) for items, query in pairs], dtype=np.float64)

    def counted(self, values: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
        """bool[Q]: the questions in `where` (bool[Q]) that a mean of `values` is over: those that have a value."""
        inside = (self.weights > 0) & ~np.isnan(values)
        return inside if where is None else inside & where

    def interval(self, values: np.ndarray, where: np.ndarray | None = None) -> Interval | None:
        """The weighted mean of values, with its 95 % interval; of the questions in `where` (bool[Q]). None of none."""
        inside = self.counted(values, where)
        if not inside.any():
            return None
        return bootstrap(values[inside], self.weights[inside], self.clusters[inside], self.seed)

    def mean(self, values: np.ndarray, where: np.ndarray | None = None) -> float | None:
        """The weighted mean alone."""
        inside = self.counted(values, where)
        return float(np.average(values[inside], weights=self.weights[inside])) if inside.any() else None

    def compare(
        self, name: str, challenger: np.ndarray, rival: np.ndarray, where: np.ndarray | None = None
    ) -> Comparison | None:
        """Challenger minus rival, paired, from the values of each question. None where no question compares them."""
        both = self.counted(challenger - rival, where)
        value, difference = self.mean(rival, both), self.interval(challenger - rival, both)
        return None if value is None or difference is None else Comparison(name, value, difference)

    def all_metrics(self, ranked: Lists) -> dict[str, float | None]:
        """The gate's metric and those reported beside it."""
        return {str(metric): self.mean(self.values(ranked, metric)) for metric in self.metrics}

    def undefined(self, ranked: Lists) -> dict[str, int]:
        """How many questions have no value, by metric."""
        return {
            str(metric): len(self.queries) - int(self.counted(self.values(ranked, metric)).sum())
            for metric in self.metrics
        }
