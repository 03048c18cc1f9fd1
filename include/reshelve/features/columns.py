"""The columns of what a pair model reads beside its texts, by the names of `examples.features`; without TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence

# A word is covered by the share of its n-grams, weighed by idf, that the title holds.
TEXT = (
    "words_held", "words_held_idf", "covered", "covered_idf", "covered_least", "covered_first", "covered_last",
    "held_first", "held_last", "rarest_held", "rarest_covered", "neighbours_held", "numbers_held", "numbers",
    "first_place", "last_place", "idf_held", "idf_missing", "title_share",
    "query_words", "title_words", "query_letters", "idf_most", "idf_mean", "idf_least", "idf_last",
)  # fmt: skip
BEHAVIOUR = tuple(
    f"{of}_{what}" for of in ("item", "query", "both") for what in ("rate_ever", "rate_7d", "shown")
)
_COLUMNS = {"text": TEXT, "behaviour": BEHAVIOUR, "position": ("log_position",)}


def feature_columns(names: Sequence[str]) -> tuple[str, ...]:
    """The columns, in their order, whatever that of the names."""
    return tuple(column for name, columns in _COLUMNS.items() if name in names for column in columns)
