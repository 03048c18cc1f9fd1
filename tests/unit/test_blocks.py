"""A result as a person reads it in a log."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reshelve.blocks import block, lines

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=20), inner, max_size=20),
    max_leaves=60,
)


def test_names_are_aligned_and_tables_are_tables() -> None:
    result = {
        "verdict": "hold", "queries": 200, "champion": None, "value": 0.123456789, "published": True,
        "reasons": ["better than the baseline: +0.1", "may be worse"],
        "steps": [{"step": "int8", "kept": True}, {"step": "prune", "kept": False}],
    }  # fmt: skip
    assert block("gate: run", result)[1:-1] == [
        "verdict    hold",
        "queries    200",
        "champion   –",
        "value      0.123457",
        "published  yes",
        "reasons",
        "  better than the baseline: +0.1",
        "  may be worse",
        "steps",
        "  step   kept",
        "  int8   yes",
        "  prune  no",
    ]


def test_what_is_too_long_to_read_is_counted() -> None:
    assert lines({"slices": {str(n): {"x": 1} for n in range(40)}}) == ["slices  (40 entries)"]


@given(st.dictionaries(st.text(min_size=1, max_size=20), json_values, max_size=10))
def test_any_result_has_a_block_of_a_bounded_size(result: dict[str, object]) -> None:
    shown = lines(result)
    assert len(shown) <= len(result) * 14
    assert all(len(line) <= 900 for line in shown)
