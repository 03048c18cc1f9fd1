"""Ranking metrics as pure functions: one query's ranked list → one number in [0, 1], or None where there is none.

`ranked` is best first and holds each item once; `relevant` may name items that the list lacks, which is a miss. Where
nothing is relevant (AUC: where nothing else is, too) a metric is undefined: 0 would be a miss, and 1 praise, for no answer at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from reshelve.errors import ConfigurationError


def recall(ranked: Sequence[str], relevant: Collection[str], k: int) -> float | None:
    """Share of the relevant items among the first k."""
    return len(set(ranked[:k]) & set(relevant)) / len(set(relevant)) if relevant else None


def mrr(ranked: Sequence[str], relevant: Collection[str], k: int) -> float | None:
    """1 / rank of the first relevant item; 0 beyond rank k."""
    if not relevant:
        return None
    return next((1 / rank for rank, item in enumerate(ranked[:k], 1) if item in relevant), 0.0)


def average_precision(ranked: Sequence[str], relevant: Collection[str], k: int) -> float | None:
    """Mean precision at the ranks of the relevant items, over min(k, their number): the MAP@k of the competitions."""
    if not relevant:
        return None
    found, total = 0, 0.0
    for rank, item in enumerate(ranked[:k], 1):
        if item in relevant:
            found += 1
            total += found / rank
    return total / min(k, len(set(relevant)))


def ndcg_of_gains(ranked: Sequence[str], gains: Mapping[str, float], k: int) -> float | None:
    """nDCG@k with gain 2^g − 1 and discount 1 / log2(rank + 1) (Burges et al., 2005). Items without a gain have 0."""
    ideal = sorted(gains.values(), reverse=True)[:k]
    best = sum((2**gain - 1) / math.log2(rank + 1) for rank, gain in enumerate(ideal, 1))
    if best == 0:
        return None
    reached = sum(
        (2 ** gains.get(item, 0.0) - 1) / math.log2(rank + 1) for rank, item in enumerate(ranked[:k], 1)
    )
    return reached / best


def ndcg(ranked: Sequence[str], relevant: Collection[str], k: int) -> float | None:
    """nDCG@k where an item is relevant or not."""
    return ndcg_of_gains(ranked, dict.fromkeys(relevant, 1.0), k)


def auc(ranked: Sequence[str], relevant: Collection[str], k: int) -> float | None:
    """Share of the pairs (relevant, other) in the right order: the area under one list's ROC curve (Fawcett, 2006).

    Of the first k; a relevant item beyond them, or that the list lacks, stands behind every other. None without a pair.
    """
    wanted = set(relevant)
    others = sum(item not in wanted for item in ranked[:k])
    if not wanted or not others:
        return None
    behind, ordered = others, 0
    for item in ranked[:k]:
        if item in wanted:
            ordered += behind
        else:
            behind -= 1
    return ordered / (len(wanted) * others)


Function = Callable[[Sequence[str], Collection[str], int], float | None]
_AT_DEPTH: dict[str, Function] = {"recall": recall, "mrr": mrr, "map": average_precision, "ndcg": ndcg}
_OF_WHOLE_LISTS: dict[str, Function] = {"mrr": mrr, "auc": auc}
_DEPTH = 10  # of the metrics beside one that has none


@dataclass(frozen=True)
class Metric:
    """A metric with its depth, as in `recall@20`; without one, as in `mrr`, it looks at the whole list."""

    name: str
    k: int | None = None

    @classmethod
    def parse(cls, text: str) -> Metric:
        """`map@5` → Metric("map", 5), `auc` → Metric("auc"). Raises ConfigurationError."""
        if text in _OF_WHOLE_LISTS:
            return cls(text)
        name, at, k = text.partition("@")
        if name not in _AT_DEPTH or not at or not k.isdigit() or int(k) < 1:
            raise ConfigurationError(
                f"{text!r} is not a metric",
                f"expected one of {', '.join(_AT_DEPTH)}, then @ and a depth; or {' or '.join(_OF_WHOLE_LISTS)}",
            )
        return cls(name, int(k))

    @property
    def depth(self) -> int:
        """Places that are looked at, where a list must be cut: 10 for a metric that looks at all."""
        return self.k or _DEPTH

    def of(self, ranked: Sequence[str], relevant: Collection[str]) -> float | None:
        """One query's value, None where it has none. A mapping of items to gains is graded relevance, which nDCG reads; the others count items."""
        if self.name == "ndcg" and isinstance(relevant, Mapping):
            return ndcg_of_gains(ranked, relevant, self.depth)
        if self.k is None:
            return _OF_WHOLE_LISTS[self.name](ranked, relevant, len(ranked))
        return _AT_DEPTH[self.name](ranked, relevant, self.k)

    def __str__(self) -> str:
        return self.name if self.k is None else f"{self.name}@{self.k}"


def reported(metric: Metric, *, whole_lists: bool = False) -> list[Metric]:
    """The gate's metric, and those at its depth that are reported beside it; the AUC where `whole_lists` are ranked."""
    others = [Metric(name, metric.depth) for name in _AT_DEPTH]
    if whole_lists:
        others.append(Metric("auc"))
    return [metric, *(other for other in others if other != metric)]
