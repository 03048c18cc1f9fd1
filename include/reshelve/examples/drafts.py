"""What a first ranker file is drafted from: what a source holds, and what each kind says of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True)
class SourceContents:
    """What a source's events hold."""

    types: dict[str, int]
    days: int
    items: int
    choices: int
    searched: int
    judged: int
    grades: tuple[float | None, float | None]
    categories: int
    segments: int
    baskets: int
    services: tuple[str, ...]
    first: date | None  # the oldest day
    last: date | None  # the newest day
    bought_again: (
        float | None
    )  # share of what returning customers take that they had taken before; None: there are none

    @property
    def window(self) -> int:
        """The days from the first to the last."""
        return (self.last - self.first).days + 1 if self.first and self.last else 0

    @property
    def share(self) -> str:
        """How many choices follow a query, in words."""
        return f"{self.searched:,} of {self.choices:,} choices follow a query"

    @property
    def why(self) -> str:
        """What speaks for a kind that reads queries."""
        return f"{self.judged:,} judgements; {self.share}" if self.judged else self.share


@dataclass(frozen=True)
class Draft:
    """What a kind says of a source: whether it can learn from it, and the values that are its own in the first file."""

    need: str  # events that it learns from, in words
    found: int  # of those
    why: str
    metric: str
    suits: int = 0  # the kind that says most is taken where none is asked for
    beats: tuple[str, ...] = ("popularity",)
    max_length: int = 64
    validation: int = 1  # partitions
    judged: bool = False  # learns from judgements
    from_history: bool = False  # answers for what a customer holds
