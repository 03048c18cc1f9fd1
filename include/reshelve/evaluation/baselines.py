"""What a model must be better than, one registry: `gates.beats` is checked by it, the gate ranks by it, reports name by it.

A baseline is a score per catalogue item, known when the holdout began, and ranks the same candidates as the model. Reading ranker files
asks here too, so nothing heavy is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from reshelve.evaluation.baseline_ranking import CountedPast
    from reshelve.examples.formats import HoldoutQuery

    Scores = Callable[[CountedPast, HoldoutQuery], Sequence[np.ndarray]]


@dataclass(frozen=True)
class Baseline:
    """`scores` gives float64[C] for the items of the catalogue: the first decides, ties are broken by the next."""

    name: str  # in `gates.beats` and in results
    label: str  # for people
    scores: Scores
    kinds: frozenset[str] | None = None  # names of those that it ranks for; None: all


def _popularity(past: CountedPast, query: HoldoutQuery) -> Sequence[np.ndarray]:
    """Weight of the last seven days' events."""
    return [past.popularity]


def _words(past: CountedPast, query: HoldoutQuery) -> Sequence[np.ndarray]:
    """BM25 of the text on the titles, then popularity."""
    return [past.title_scores(query.text), past.popularity]


def _choices(past: CountedPast, query: HoldoutQuery) -> Sequence[np.ndarray]:
    """What was chosen together with what is asked, as the kind counts it; ties by the words, or by popularity."""
    return past.together(query)


_BASELINES = {
    each.name: each
    for each in (
        Baseline("popularity", "popularity", _popularity),
        Baseline("bm25", "BM25", _words),
        Baseline("cooccurrence", "chosen together", _choices),
    )
}


def register(added: Baseline) -> None:
    """Add a baseline of your own. Raises ValueError where its name is taken."""
    if added.name in _BASELINES:
        raise ValueError(f"baseline {added.name}: the name is taken")
    _BASELINES[added.name] = added


def baselines(kind: str | None = None) -> tuple[Baseline, ...]:
    """Those that rank for rankers of `kind`; all of them by default."""
    found = _BASELINES.values()
    return tuple(each for each in found if kind is None or each.kinds is None or kind in each.kinds)
