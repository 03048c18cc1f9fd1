"""The plan of a search: its waves, fixed beforehand by the ranker file, and who is in them, decided by the losses.

A wave is up to `search.parallel` trials that are evaluated side by side and saw the same finished waves. Without halving
a search is waves of new trials. With it, trials come in brackets: all of a bracket at the smallest budget, the best
1/eta of them (and no fewer than the finalists) again at eta times that, and so on up to `search.budget_share`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from reshelve.tuning.form import MOST_PARALLEL, Search
from reshelve.tuning.trial import Status, Trial


@dataclass(frozen=True)
class Wave:
    """The trials in places `first … last` (exclusive) of one bracket at one rung."""

    bracket: range  # the ids of the bracket's trials
    rung: int
    first: int
    last: int


@dataclass(frozen=True)
class Standing:
    """Where a search stands: the first wave that is not finished, its trials, and all that was finished before it."""

    wave: Wave
    ids: tuple[int, ...]
    finished: tuple[Trial, ...]
    seconds: float  # of evaluating so far, trials of one wave counted as running side by side
    machine_seconds: float  # the same, each trial counted


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


def standing(search: Search, trials: Sequence[Trial]) -> Standing | None:
    """Where a search with these trials stands; None when every wave is finished. A function of its arguments alone."""
    known = {(trial.id, trial.rung): trial for trial in trials}
    finished: list[Trial] = []
    seconds = machine_seconds = 0.0
    for wave in waves(search):
        ids = _members(search, wave, known)
        here = [known[key] for key in ((identifier, wave.rung) for identifier in ids) if key in known]
        if len(here) < len(ids) or any(trial.status is Status.ASKED for trial in here):
            return Standing(wave, ids, tuple(finished), seconds, machine_seconds)
        finished += here
        seconds += max((trial.seconds for trial in here), default=0.0)
        machine_seconds += sum(trial.seconds for trial in here)
    return None


def elapsed(search: Search, trials: Sequence[Trial]) -> float:
    """Seconds of evaluating, trials of one wave counted as running side by side, whether it is finished or not."""
    known = {(trial.id, trial.rung): trial for trial in trials}
    total = 0.0
    for wave in waves(search):
        here = (known.get((identifier, wave.rung)) for identifier in _members(search, wave, known))
        total += max((trial.seconds for trial in here if trial), default=0.0)
    return total


def _members(search: Search, wave: Wave, known: dict[tuple[int, int], Trial]) -> tuple[int, ...]:
    """The ids in a wave whose earlier waves are finished."""
    if wave.rung == 0:
        return tuple(wave.bracket[wave.first : wave.last])
    below = [known.get((identifier, wave.rung - 1)) for identifier in wave.bracket]
    done = [trial for trial in below if trial and trial.loss is not None]
    best = sorted(done, key=lambda trial: (trial.loss, trial.id))
    return tuple(trial.id for trial in best[wave.first : wave.last])


def _places(size: int, rung: int, eta: int, least: int) -> int:
    for _ in range(rung):
        size = max(min(least, size), size // eta)
    return size
