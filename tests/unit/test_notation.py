"""Numbers as people write them: no exponent anywhere, and no digit that was not asked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reshelve.notation import plain
from reshelve.reporting.words import milliseconds, money, short
from reshelve.result_text import lines
from reshelve.validation.row_rules import Between


@pytest.mark.parametrize(
    ("value", "digits", "said"),
    [
        (1364.2, 3, "1,364"), (1364.2, 6, "1,364.2"), (999.6, 3, "1,000"), (4.2e-05, 3, "0.000042"), (9.996, 3, "10"),
        (1e-05, 6, "0.00001"), (4.2e-10, 3, "4.2 × 10⁻¹⁰"), (1234567.0, 6, "1,234,567"), (-0.5, 6, "−0.5"), (0.0, 6, "0"),
        (-0.0, 6, "0"), (3.0, 3, "3"), (100.0, 3, "100"), (float("inf"), 3, "inf"), (-1e-9, 3, "−1 × 10⁻⁹"),
        (float("-inf"), 3, "−inf"), (float("nan"), 3, "nan"), (9.9999e-08, 3, "0.0000001"), (9.9999e-09, 3, "1 × 10⁻⁸"),
        (9.9999e-08, 6, "9.9999 × 10⁻⁸"), (5e-324, 6, "4.94066 × 10⁻³²⁴"), (10**400, 6, "1 × 10⁴⁰⁰"), (1e300, 3, "1 × 10³⁰⁰"),
        (-(10**15), 3, "−1,000,000,000,000,000"), (1.234e16, 6, "1.234 × 10¹⁶"), (9.9999e-10, 1, "1 × 10⁻⁹"),
    ],
)  # fmt: skip
def test_a_number_is_written_in_full(value: float, digits: int, said: str) -> None:
    assert plain(value, digits) == said


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(), st.integers(1, 8))
def test_no_number_is_too_large_or_too_small(value: float, digits: int) -> None:
    text = plain(value, digits)
    mantissa, _, power = text.partition(" × 10")
    assert len(text) < 35
    assert not power or 1 <= float(mantissa.replace("−", "-").removeprefix("-")) < 10
    assert (text == "0") == (value == 0)


@given(st.floats(1e-7, 1e15), st.integers(1, 8))
def test_what_is_written_is_the_number(value: float, digits: int) -> None:
    text = plain(value, digits)
    assert "e" not in text
    assert float(text.replace(",", "")) == pytest.approx(value, rel=10.0 ** (1 - digits))


@pytest.mark.parametrize("value", [0.00123, 12.3456, 1364.2, 98765.4, 1.2e7])
def test_times_costs_and_settings_have_no_exponent(value: float) -> None:
    for text in (
        milliseconds(value),
        money(value / 1e6),
        short(value),
        short(value / 1e7),
        *lines({"x": value}),
    ):
        assert "e+" not in text and "e-" not in text, text
    assert milliseconds(1364.2) == "1,364 ms" and short(4.2e-05) == "0.000042"


def test_a_rules_bound_has_no_exponent() -> None:
    rule = Between.model_validate(
        {
            "name": "price",
            "description": "A price",
            "check": "between",
            "severity": "warn",
            "column": "price",
            "max": 12_000_000,
        }
    )
    assert "at most 12,000,000" in rule.failure()
