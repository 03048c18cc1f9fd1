"""A result as a person reads it in a log."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from reshelve.result_text import MOST_ROWS, block, lines

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
names = st.text(max_size=8)
# Parts of at most four, in parts of at most three, in a part that may be too long to read: drawn without a retry.
small = st.lists(scalars, max_size=4) | st.dictionaries(names, scalars, max_size=4)
nested = st.lists(small, max_size=3) | st.dictionaries(names, small, max_size=3)
rows = scalars | small | nested
json_values = (
    rows | st.lists(rows, max_size=MOST_ROWS + 2) | st.dictionaries(names, rows, max_size=MOST_ROWS + 2)
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


REASON = "the share of clicks without an impression rose from 0.2 % to 7.9 %, which is surely more than the rule allows"


def test_a_log_that_is_no_terminal_cuts_and_wraps_nothing() -> None:
    result = {"headline": REASON, "rules": [{"rule": "click_without_impression", "says": REASON}]}
    assert lines(result) == [
        f"headline  {REASON}",
        "rules",
        f"  {'rule':<24}  says",
        f"  click_without_impression  {REASON}",
    ]


def test_a_terminal_gets_the_rest_below_where_it_began() -> None:
    result = {"headline": REASON, "rules": [{"rule": "clicks", "says": REASON}], "reasons": [REASON, "a b"]}
    shown = lines(result, 60)
    assert max(map(len, shown)) <= 60
    assert shown[1].startswith(" " * len("headline  ")) and not shown[1][len("headline  ")].isspace()
    for line in ("  rule    says", "  a b"):
        assert line in shown
    words = " ".join(" ".join(shown).split())
    assert words.count(REASON) == 3 and f"clicks {REASON}" in words


def texts(value: object) -> Iterator[str]:
    """Every text of a result that is shown as it is: not those of parts that are too many to be read."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict) and len(value) <= MOST_ROWS:
        for each in value if isinstance(value, list) else value.values():
            yield from texts(each)


@given(st.dictionaries(st.text(min_size=1, max_size=20), json_values, max_size=10))
def test_any_result_is_shown_whole_in_a_bounded_number_of_lines(result: dict[str, object]) -> None:
    shown = lines(result)
    assert len(shown) <= len(result) * (MOST_ROWS + 2)
    whole = "\n".join(shown)
    for value in result.values():
        assert all(text.replace("\n", " ").rstrip() in whole for text in texts(value))
