"""The ratio of two arms' click-through, stratum by stratum, with an interval that may be looked at at any time. Pure functions.

Estimate: Mantel and Haenszel's ratio of rates (Rothman, 1986; Greenland and Robins, 1985): arms are compared within a stratum
alone, so nothing that differs between strata can pass for a difference between the arms.
Spread: requests of one session are not independent, so sessions are what varies: the residuals of whole sessions under
the ratio that is tried (the delta method for ratio metrics: Deng, Knoblich and Lu, 2018), and the interval holds the
ratios that are not refuted (a score test turned round, as Wilson's interval is).
Looking again: the critical value is that of a normal mixture (Robbins, 1970; Howard, Ramdas, McAuliffe and Sekhon, 2021, eq. 14;
for averages of any distribution: Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, 2024). All looks together err in 1 of 100 releases at most.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from reshelve.statistics.interval import Interval

ERROR = 0.01  # of all looks together, both sides
_TIGHTEST = 500.0  # sessions: the mixture's; looks at about twelve times as many have the narrowest intervals
_MOST = 1e6  # nobody asks for a ratio above it, nor below its inverse
_DOUBLINGS = 40
_HALVINGS = 20

_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Arm:
    """Sums over the sessions of one arm in one stratum; n: requests of a session, k: those that led to a click."""

    sessions: int = 0
    n: float = 0
    k: float = 0
    nn: float = 0
    nk: float = 0
    kk: float = 0


@dataclass(frozen=True)
class Stratum:
    """Both arms of one stratum: what is compared, and what it is compared with."""

    mine: Arm
    theirs: Arm


def critical_value(sessions: float, error: float = ERROR) -> float:
    """How many standard errors a look after so many (effective) sessions may be off.

    Howard et al. (2021), eq. 14, with intrinsic time counted in sessions; infinite where there are none.
    """
    if sessions <= 0:
        return math.inf
    time = sessions / _TIGHTEST
    return math.sqrt((1 + 1 / time) * math.log((1 + time) / error**2))


def mantel_haenszel(strata: Iterable[Stratum], error: float = ERROR) -> Interval | None:
    """Click-through of one arm as a multiple of the other's: Mantel and Haenszel's ratio and its interval.

    Strata where one of both has nothing say nothing. None where nobody clicked.
    """
    both = [one for one in strata if one.mine.n and one.theirs.n]
    mine, theirs = _sums([one.mine for one in both]), _sums([one.theirs for one in both])
    requests = mine.n + theirs.n
    up, down = (mine.k * theirs.n / requests).sum(), (theirs.k * mine.n / requests).sum()
    if not both or up + down == 0:
        return None
    # Variances of two averages add: so many pairs of sessions tell as much.
    effective = float((mine.sessions * theirs.sessions / (mine.sessions + theirs.sessions)).sum())
    most = critical_value(effective, error)

    def off(tried: float) -> float:
        """By how many standard errors the arms refute a ratio; above 0: the true one is larger."""
        distance, spread = _score(mine, theirs, tried)
        return distance / spread if spread else math.copysign(math.inf, distance) if distance else 0.0

    value = float(up / down) if down else math.inf
    low = 0.0 if not value else _end(lambda tried: off(tried) > most, min(value, _MOST), 0.5, 0.0)
    high = _end(lambda tried: off(tried) < -most, max(value, 1 / _MOST), 2.0, math.inf) if down else math.inf
    return Interval(value, low, high)


@dataclass(frozen=True)
class _Sums:
    """Arms as columns: float64[strata] each."""

    sessions: _Floats
    n: _Floats
    k: _Floats
    nn: _Floats
    nk: _Floats
    kk: _Floats

    def squares(self, rate: _Floats) -> _Floats:
        """float64[strata]: the sum of (k - rate n)² over the sessions."""
        return np.maximum(self.kk - 2 * rate * self.nk + rate**2 * self.nn, 0)


def _sums(arms: Sequence[Arm]) -> _Sums:
    return _Sums(**{f.name: np.array([getattr(arm, f.name) for arm in arms], float) for f in fields(Arm)})


def _score(mine: _Sums, theirs: _Sums, tried: float) -> tuple[float, float]:
    """Mantel and Haenszel's estimating function at a ratio, and its standard error.

    A session's residual is k - rate n, with the stratum's one rate that both arms' clicks give under the ratio that is tried.
    """
    requests = mine.n + theirs.n
    own, other = theirs.n / requests, tried * mine.n / requests
    rate = (mine.k + theirs.k) / np.maximum(tried * mine.n + theirs.n, 1e-12)
    ours, others = mine.squares(tried * rate), theirs.squares(rate)
    sessions = mine.sessions + theirs.sessions
    spare = sessions / (sessions - 1)  # the rate was estimated
    apart = own**2 * ours + other**2 * others
    # Sessions of both arms are of one kind where the versions are alike; the small arm's own spread is then a poor guess:
    # without one of the few who click much, both its clicks and its spread are low. Where they differ, each has its own.
    scale = max(tried, 1e-12)
    one = (ours / scale**2 + others) / sessions
    pooled = own**2 * mine.sessions * scale**2 * one + other**2 * theirs.sessions * one
    distance = float((own * mine.k - other * theirs.k).sum())
    return distance, math.sqrt(max(float((spare * apart).sum()), float((spare * pooled).sum())))


def _end(refuted: Callable[[float], bool], inside: float, factor: float, none: float) -> float:
    """Where ratios begin to be refuted, going away from `inside` by `factor`; `none` where they never are."""
    for _ in range(_DOUBLINGS):
        outside = inside * factor
        if refuted(outside):
            break
        inside = outside
    else:
        return none
    for _ in range(_HALVINGS):
        middle = math.sqrt(inside * outside)
        inside, outside = (inside, middle) if refuted(middle) else (middle, outside)
    return outside
