"""Two wordings of one query are one query, in the window's SQL and in Python."""

from __future__ import annotations

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reshelve.examples.queries import normalised, normalised_sql


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        pytest.param("Red  Lamp", "red lamp", id="spaces and capitals"),
        pytest.param("\tred\nlamp ", "red lamp", id="ASCII white space at the ends"),
        pytest.param("red\u00a0lamp", "red lamp", id="no-break space"),
        pytest.param("\u3000赤い\u3000ランプ", "赤い ランプ", id="ideographic space"),
        pytest.param("red\x0b\x1c\x85lamp", "red lamp", id="control characters that are white space"),
        pytest.param("cafe\u0301", "caf\u00e9", id="composed"),
        pytest.param("ΌΣΟΣ", "όσοσ", id="Greek capitals"),
        pytest.param(" \u2003 ", "", id="blank"),
    ],
)
def test_what_is_typed_alike_is_one_query(typed, found):
    assert normalised(typed) == found


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=1, max_size=20
    )
)
def test_sql_and_python_agree_on_every_text(queries):
    rows = duckdb.execute(
        f"SELECT {normalised_sql('query')} FROM (SELECT unnest(?) AS query)", [queries]
    ).fetchall()
    assert [row for (row,) in rows] == [normalised(query) for query in queries]
    for query in queries:
        assert normalised(normalised(query)) == normalised(query)
        assert "\t" not in normalised(query) and normalised(query) == normalised(query).strip()
