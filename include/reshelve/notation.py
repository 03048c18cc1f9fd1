"""Numbers as people write them: no exponent, thousands apart, a true minus."""

from __future__ import annotations

import math
from decimal import Decimal

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_PLAIN_EXPONENTS = range(-7, 16)  # beyond them are more zeros than can be counted at a glance


def plain(value: float, digits: int = 6) -> str:
    """`digits` significant ones, and of a larger number all before the point; a power of ten where it is very large or small.

    1364.2 → 1,364.2, and with 3 digits 1,364; 0.000042 → 0.000042; 4.2e-10 → 4.2 × 10⁻¹⁰; −0.5 → −0.5; 1e300 → 1 × 10³⁰⁰.
    """
    if value == 0:
        return "0"
    number = Decimal(value) if isinstance(value, int) else value  # an int may be larger than any float
    if isinstance(number, float) and not math.isfinite(number):
        return f"{number:g}".replace("-", "−")
    mantissa, _, power = f"{number:.{digits - 1}e}".partition("e")  # rounded: 9.9999999 is 10 already
    exponent = int(power)
    if exponent in _PLAIN_EXPONENTS:
        text = _trimmed(f"{number:,.{max(0, digits - 1 - exponent)}f}")
    else:
        text = f"{_trimmed(mantissa)} × 10{str(exponent).translate(_SUPERSCRIPTS)}"
    return text.replace("-", "−")


def _trimmed(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text
