"""Misspelt training texts."""

from __future__ import annotations

import pytest

from reshelve.examples.misspelling import Misspelling

TEXTS = [f"vintage lantern number{letter} heart" for letter in "abcdefghijklmnopqrstuvwxyz"] * 40
DISTINCT = [f"wooden heart {place:x} garden" for place in range(2000)]


def edits(one: str, other: str) -> int:
    """Damerau's distance: insertions, deletions, replacements and swaps of neighbours."""
    rows = {(i, -1): i + 1 for i in range(-1, len(one))} | {(-1, j): j + 1 for j in range(-1, len(other))}
    for i, left in enumerate(one):
        for j, right in enumerate(other):
            rows[i, j] = min(rows[i - 1, j] + 1, rows[i, j - 1] + 1, rows[i - 1, j - 1] + (left != right))
            if i and j and left == other[j - 1] and one[i - 1] == right:
                rows[i, j] = min(rows[i, j], rows[i - 2, j - 2] + 1)
    return rows[len(one) - 1, len(other) - 1]


def test_the_wanted_share_has_one_slip_of_a_finger() -> None:
    found = [(text, Misspelling(0.3, 17).of(text)) for text in DISTINCT]
    changed = [(text, read) for text, read in found if text != read]
    assert len(changed) / len(found) == pytest.approx(0.3, abs=0.04)
    assert {edits(text, read) for text, read in changed} == {1}
    assert all(read.split()[2] == text.split()[2] for text, read in changed)  # short words and numbers stay


def test_it_depends_on_seed_and_text_alone() -> None:
    assert [Misspelling(0.5, 1).of(t) for t in TEXTS] == [Misspelling(0.5, 1).of(t) for t in TEXTS]
    assert [Misspelling(0.5, 1).of(t) for t in DISTINCT] != [Misspelling(0.5, 2).of(t) for t in DISTINCT]
    assert all(Misspelling(0.0, 1).of(text) == text for text in DISTINCT)
    assert Misspelling(1.0, 1).of("a 50 mm x3") == "a 50 mm x3"
