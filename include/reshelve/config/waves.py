"""The waves of tuning, fixed beforehand by the ranker file.

A wave is up to `tuning.parallel` trials that are evaluated side by side and saw the same finished waves. Without halving
tuning is waves of new trials. With it, trials come in brackets: all of a bracket at the smallest budget, the best
1/eta of them (and no fewer than the finalists) again at eta times that, and so on up to `tuning.budget_share`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reshelve.config.tuning import Tuning

MOST_PARALLEL = 64  # trials side by side


@dataclass(frozen=True)
class Wave:
    """The trials in places `first … last` (exclusive) of one bracket at one rung."""

    bracket: range  # the ids of the bracket's trials
    rung: int
    first: int
    last: int


def rungs(tuning: Tuning) -> tuple[float, ...]:
    """Shares of a full training, rising to `budget_share`; one of them without halving."""
    shares = [tuning.budget_share]
    if tuning.halving:
        # A hair of tolerance: 0.09 / 3 / 3 is not quite 0.01.
        while shares[0] / tuning.halving.eta >= tuning.halving.min_share * (1 - 1e-9):
            shares.insert(0, shares[0] / tuning.halving.eta)
    return tuple(shares)


def waves(tuning: Tuning) -> Iterator[Wave]:
    """All waves that tuning may have; where trials fail, the last ones of a bracket stay empty."""
    if not tuning.space:
        return
    depth = len(rungs(tuning))
    eta = tuning.halving.eta if tuning.halving else 1
    least = tuning.halving.finalists if tuning.halving else 1
    size = (tuning.halving and tuning.halving.bracket) or eta ** (depth - 1)
    size = -(-size // tuning.parallel) * tuning.parallel  # a wave costs the same time with a place empty
    trials = tuning.most_trials
    for start in range(0, trials, size):
        bracket = range(start, min(start + size, trials))
        for rung in range(depth):
            count = _places(len(bracket), rung, eta, least)
            for first in range(0, count, tuning.parallel):
                yield Wave(bracket, rung, first, min(first + tuning.parallel, count))


def wave_count(tuning: Tuning) -> int:
    """How many rounds of ask and evaluate tuning takes at most."""
    return sum(1 for _ in waves(tuning))


def width(tuning: Tuning, rounds: int) -> int:
    """The least `parallel`, the file's own or more, at which the waves fit into `rounds` (or the most there may be)."""
    for parallel in range(tuning.parallel, MOST_PARALLEL):
        if wave_count(tuning.model_copy(update={"parallel": parallel})) <= rounds:
            return parallel
    return MOST_PARALLEL


def _places(size: int, rung: int, eta: int, least: int) -> int:
    for _ in range(rung):
        size = max(min(least, size), size // eta)
    return size
