"""The waves of a search, fixed beforehand by the ranker file.

A wave is up to `search.parallel` trials that are evaluated side by side and saw the same finished waves. Without halving
a search is waves of new trials. With it, trials come in brackets: all of a bracket at the smallest budget, the best
1/eta of them (and no fewer than the finalists) again at eta times that, and so on up to `search.budget_share`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reshelve.config.tuning import Search

MOST_PARALLEL = 64  # trials of a search side by side


@dataclass(frozen=True)
class Wave:
    """The trials in places `first … last` (exclusive) of one bracket at one rung."""

    bracket: range  # the ids of the bracket's trials
    rung: int
    first: int
    last: int


def rungs(search: Search) -> tuple[float, ...]:
    """Shares of a full training, rising to `budget_share`; one of them without halving."""
    shares = [search.budget_share]
    if search.halving:
        # A hair of tolerance: 0.09 / 3 / 3 is not quite 0.01.
        while shares[0] / search.halving.eta >= search.halving.min_share * (1 - 1e-9):
            shares.insert(0, shares[0] / search.halving.eta)
    return tuple(shares)


def waves(search: Search) -> Iterator[Wave]:
    """All waves that the search may have; where trials fail, the last ones of a bracket stay empty."""
    if not search.space:
        return
    depth = len(rungs(search))
    eta = search.halving.eta if search.halving else 1
    least = search.halving.finalists if search.halving else 1
    size = (search.halving and search.halving.bracket) or eta ** (depth - 1)
    size = -(-size // search.parallel) * search.parallel  # a wave costs the same time with a place empty
    trials = search.most_trials
    for start in range(0, trials, size):
        bracket = range(start, min(start + size, trials))
        for rung in range(depth):
            count = _places(len(bracket), rung, eta, least)
            for first in range(0, count, search.parallel):
                yield Wave(bracket, rung, first, min(first + search.parallel, count))


def wave_count(search: Search) -> int:
    """How many rounds of ask and evaluate the search takes at most."""
    return sum(1 for _ in waves(search))


def width(search: Search, rounds: int) -> int:
    """The least `parallel`, the search's own or more, at which its waves fit into `rounds` (or the most there may be)."""
    for parallel in range(search.parallel, MOST_PARALLEL):
        if wave_count(search.model_copy(update={"parallel": parallel})) <= rounds:
            return parallel
    return MOST_PARALLEL


def _places(size: int, rung: int, eta: int, least: int) -> int:
    for _ in range(rung):
        size = max(min(least, size), size // eta)
    return size
