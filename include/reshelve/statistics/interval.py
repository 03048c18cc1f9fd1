"""What every interval is."""

from __future__ import annotations

from typing import NamedTuple


class Interval(NamedTuple):
    """An estimate and the ends of its interval, in one unit. The level is that of the method that made it."""

    value: float
    low: float
    high: float

    def __neg__(self) -> Interval:
        return Interval(-self.value, -self.high, -self.low)

    @property
    def ends(self) -> tuple[float, float]:
        """The lower and the upper one."""
        return self.low, self.high

    @property
    def signed(self) -> str:
        """A difference as people read it: `+0.0120 (-0.0010 to +0.0250)`."""
        return f"{self.value:+.4f} ({self.low:+.4f} to {self.high:+.4f})"
