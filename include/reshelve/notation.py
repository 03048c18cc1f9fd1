"""Numbers as people write them: no exponent, thousands apart, a true minus."""

from __future__ import annotations

import math

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_LEAST_EXPONENT = -7  # what is smaller has more zeros than can be counted at a glance


def plain(value: float, digits: int = 6) -> str:
    """`digits` significant ones, and of a larger number all before the point.

    1364.2 → 1,364.2, and with 3 digits 1,364; 0.000042 → 0.000042; 4.2e-10 → 4.2 × 10⁻¹⁰; −0.5 → −0.5.
    """
    if value == 0 or not math.isfinite(value):
        return f"{value:g}".removeprefix("-") if value == 0 else f"{value:g}".replace("-", "−")
    exponent = math.floor(math.log10(abs(value)))
    if exponent < _LEAST_EXPONENT:
        return f"{plain(value / 10.0**exponent, digits)} × 10{str(exponent).translate(_SUPERSCRIPTS)}"
    text = f"{value:,.{max(0, digits - 1 - exponent)}f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return text.replace("-", "−")
