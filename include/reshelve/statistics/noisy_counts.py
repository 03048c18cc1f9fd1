"""Counts with noise, by OpenDP: differential privacy for whoever gives a bounded part of them.

The names that are counted are not known beforehand: which of them appear depends on who is there. So a name is released only
where its count, noise included, reaches a threshold that one customer alone passes with a chance below δ (Rogers, A Unifying
Privacy Analysis Framework for Unknown Domain Algorithms in Differential Privacy, 2023). The noise is a discrete Gaussian from
the operating system's source of randomness: it cannot be seeded, and two releases of one thing differ.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Hashable, Mapping
from functools import cached_property
from typing import Any, TypeVar

from reshelve.errors import ConfigurationError

UNIT = 1000  # one customer's whole contribution to a count: sums of whole numbers are exact
MISSING = "OpenDP is not installed"
INSTALL = "install the extra: .venv/bin/pip install --no-build-isolation -c constraints.txt -e '.[privacy]'"
_SCALES = 1e-3 * UNIT, 1e6 * UNIT  # noise that is too little for any ε, and enough for any

Name = TypeVar("Name", bound=Hashable)


def is_installed() -> bool:
    """Whether OpenDP is there."""
    return importlib.util.find_spec("opendp") is not None


class NoisyCounts:
    """One release of counts to which a customer gives at most UNIT each, and to at most `counts` of them.

    As little noise as (ε, δ) allow, and then as low a threshold, but none below `least` customers.
    """

    def __init__(self, epsilon: float, delta: float, counts: int, least: float) -> None:
        self._epsilon, self._delta = epsilon, delta
        self._given = counts, math.ceil(UNIT * math.sqrt(counts)), UNIT  # distances: L0, L2, L∞
        self._opendp = _opendp()
        # Half of δ is for texts that appear though they should not, the rest for ε itself.
        self._scale = self._opendp.binary_search(
            lambda scale: self._fits(scale, _beyond(scale), delta / 2), bounds=_SCALES, T=float
        )
        lowest, highest = max(UNIT, math.ceil(least * UNIT)), _beyond(self._scale)
        self._threshold = lowest
        if not self._fits(self._scale, lowest, delta):
            self._threshold = self._opendp.binary_search(
                lambda threshold: self._fits(self._scale, threshold, delta), bounds=(lowest, highest), T=int
            )

    @property
    def scale(self) -> float:
        """Standard deviation of the noise, in customers."""
        return self._scale / UNIT

    @property
    def threshold(self) -> float:
        """What a count has to reach, noise included, in customers."""
        return self._threshold / UNIT

    @cached_property
    def spent(self) -> tuple[float, float]:
        """(ε, δ) that the release costs a customer, as OpenDP's privacy map says."""
        epsilon, delta = self._fixed(self._made(self._scale, self._threshold), self._delta).map(self._given)
        return float(epsilon), float(delta)

    def release(self, counts: Mapping[Name, int]) -> dict[Name, float]:
        """Counts in UNITs → those that reach the threshold, with noise, in customers; in the names' own order."""
        names = list(counts)
        # A number stands for each name: which number it is says nothing that the names do not.
        measured = self._made(self._scale, self._threshold)(dict(enumerate(counts.values())))
        return {names[number]: count / UNIT for number, count in sorted(measured.items())}

    def _made(self, scale: float, threshold: int) -> Any:
        dp = self._opendp
        number = dp.atom_domain(T="i64")
        metric = dp.l02inf_distance(dp.absolute_distance(T="i64"))
        return dp.m.make_gaussian_threshold(dp.map_domain(number, number), metric, scale, threshold)

    def _fixed(self, measurement: Any, delta: float) -> Any:
        return self._opendp.c.make_fix_delta(self._opendp.c.make_zCDP_to_approxDP(measurement), delta)

    def _fits(self, scale: float, threshold: int, delta: float) -> bool:
        """Whether a release with this noise costs no more than ε."""
        try:
            return bool(self._fixed(self._made(scale, threshold), delta).map(self._given)[0] <= self._epsilon)
        except self._opendp.OpenDPException:  # more δ than there is, or an ε beyond all numbers
            return False


def _beyond(scale: float) -> int:
    """A threshold that noise does not reach."""
    return UNIT + math.ceil(100 * scale)


def _opendp() -> Any:
    """OpenDP. Raises ConfigurationError where it is not installed."""
    if not is_installed():
        raise ConfigurationError(MISSING, INSTALL)
    import opendp.prelude as dp

    dp.enable_features("contrib")  # what its committee has not proven line by line: all thresholds are
    return dp
