"""Are items with a score of 0.3 chosen three times in ten? The reliability table and the expected calibration error.

What counts as one prediction depends on the kind. pair: each candidate of each question, and whether it was chosen, or
the place of its grade between the lowest and the highest.
next_item: the first item of each answer, and whether it came next (the confidence calibration of Guo et al., 2017).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from reshelve.evaluation.scoring import RankedAnswers
from reshelve.examples.formats import HoldoutQuery
from reshelve.kind_registry import kind_of
from reshelve.statistics.bootstrap import bootstrap_of_gaps
from reshelve.statistics.interval import Interval

BINS = 10


@dataclass(frozen=True)
class Predictions:
    """N probabilities and what became of them."""

    probability: np.ndarray  # float64[N] in [0, 1]
    outcome: np.ndarray  # bool[N]; of judgements float64[N] in [0, 1]
    weight: np.ndarray  # float64[N]
    cluster: Sequence[str]  # N: rows of one rise and fall together

    def __len__(self) -> int:
        return len(self.probability)


@dataclass(frozen=True)
class Bin:
    """One row of the reliability table: predictions from `low` (included) to `high` (only 1 itself is included)."""

    low: float
    high: float
    predictions: int
    share: float  # of the weight
    predicted: float  # weighted mean probability
    observed: float  # weighted share that came true


def predictions(
    answers: RankedAnswers, queries: Sequence[HoldoutQuery], kind: str, span: float = 1.0
) -> Predictions:
    """The predictions in a version's answers. A score outside [0, 1], or that is no number, predicts nothing.

    A gain of `span` is the highest there is.
    """
    rows = list(_rows(answers, queries, kind, span))
    probability, outcome, weight, cluster = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Predictions(
        np.array(probability, dtype=np.float64),
        np.array(outcome, dtype=float if any(query.gains for query in queries) else bool),
        np.array(weight, dtype=np.float64),
        cluster,
    )


def _rows(
    answers: RankedAnswers, queries: Sequence[HoldoutQuery], kind: str, span: float
) -> Iterator[tuple[float, float, float, str]]:
    depth = None if kind_of(kind).evaluation.whole_lists else 1
    for items, scores, query in zip(answers.ranked, answers.scores, queries, strict=True):
        gain = query.gain
        for item, score in zip(items[:depth], scores[:depth], strict=True):
            if 0 <= score <= 1:
                yield score, gain.get(item, 0.0) / span, query.weight, query.cluster


def reliability(found: Predictions, bins: int = BINS) -> list[Bin]:
    """The table over `bins` equally wide bins of [0, 1] (Murphy and Winkler, 1977); empty bins are left out."""
    places, table = _places(found, bins), []
    for place in np.unique(places):
        inside = places == place
        weight = found.weight[inside]
        table.append(
            Bin(
                low=float(place / bins),
                high=float((place + 1) / bins),
                predictions=int(inside.sum()),
                share=float(weight.sum() / found.weight.sum()),
                predicted=float(np.average(found.probability[inside], weights=weight)),
                observed=float(np.average(found.outcome[inside], weights=weight)),
            )
        )
    return table


def expected_calibration_error(found: Predictions, seed: int, bins: int = BINS) -> Interval | None:
    """Mean over the bins of |predicted − observed|, by their weight (Naeini et al., 2015), with its 95 % interval.

    In [0, 1]; few predictions in a bin make it, and its interval, larger than the truth. None of no predictions.
    """
    if not len(found):
        return None
    gaps = found.weight * (found.probability - found.outcome)
    return bootstrap_of_gaps(gaps, found.weight, found.cluster, _places(found, bins), bins, seed)


def _places(found: Predictions, bins: int) -> np.ndarray:
    """int64[N]: the bin of each prediction."""
    return np.minimum((found.probability * bins).astype(np.int64), bins - 1)
