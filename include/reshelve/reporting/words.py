"""Numbers as a person reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reshelve.notation import plain

NONE = "–"


def count(value: float | None) -> str:
    """12345 → 12,345."""
    return NONE if value is None else f"{value:,.0f}"


def figure(value: float | None, places: int = 4) -> str:
    """A metric: 0.30712 → 0.3071."""
    return NONE if value is None else f"{value:,.{places}f}"


def signed(value: float | None, places: int = 4) -> str:
    """A difference, its sign always shown, with a true minus."""
    return NONE if value is None else f"{value:+,.{places}f}".replace("-", "−")


def short(value: object) -> str:
    """A hyperparameter: 0.000042, 32, cls."""
    return plain(value, 3) if isinstance(value, float) else str(value)


def share(value: float | None) -> str:
    """0.0312 → 3.1 %."""
    return NONE if value is None else f"{100 * value:,.1f} %"


def interval(found: Mapping[str, Any] | None, places: int = 4) -> str:
    """{low, high} → 0.25 to 0.37."""
    return NONE if not found else f"{figure(found['low'], places)} to {figure(found['high'], places)}"


def signed_interval(found: Mapping[str, Any] | None, places: int = 4) -> str:
    """{low, high} of a difference."""
    return NONE if not found else f"{signed(found['low'], places)} to {signed(found['high'], places)}"


def duration(seconds: float | None) -> str:
    """Seconds as 45 s, 3 min 20 s, 2 h 05 min."""
    if seconds is None:
        return NONE
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def size(number: float | None) -> str:
    """Bytes as 24.0 MB."""
    if number is None:
        return NONE
    for unit, least in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= least:
            return f"{number / least:.1f} {unit}"
    return f"{number:.0f} bytes"


def milliseconds(value: float | None) -> str:
    """3.14159 → 3.14 ms; 1364.2 → 1,364 ms."""
    return NONE if value is None else f"{plain(value, 3)} ms"


def money(value: float) -> str:
    """A cost in the currency of the ranker file, which does not name it."""
    return f"{value:,.2f}" if value >= 0.995 or value == 0 else plain(value, 2)
