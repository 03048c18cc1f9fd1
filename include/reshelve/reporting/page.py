"""The parts a report is put together from, and the one HTML file they become: no script, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

_TEMPLATES = Path(__file__).parent / "templates"
_TEMPLATE = "report.html"

Cell = str | Markup


@dataclass(frozen=True)
class Table:
    """Rows of text; columns after the first `words` hold numbers and are set to the right."""

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str
    words: int = 1
    folded: bool = False  # shown when asked for
    narrow: bool = False  # may stand beside another part
    kind: str = "table"


@dataclass(frozen=True)
class Figure:
    """A drawing as inline SVG, with the words for who does not see it."""

    svg: Markup
    alt: str
    caption: str
    wide: bool = False
    kind: str = "figure"


@dataclass(frozen=True)
class FactTable:
    """Names and their values."""

    rows: Sequence[tuple[str, Cell]]
    kind: str = "facts"


@dataclass(frozen=True)
class Words:
    """A text whose words are shaded by a number, with the words that have most of it named in full."""

    title: str
    more: str
    words: Sequence[tuple[str, float]]  # the number in [-1, 1]
    strongest: str
    kind: str = "words"


@dataclass(frozen=True)
class Note:
    """A paragraph."""

    text: Cell
    kind: str = "note"


Part = Table | Figure | FactTable | Words | Note


@dataclass(frozen=True)
class Section:
    """A heading, one sentence that says what is below, and the parts."""

    id: str
    title: str
    lead: Cell
    parts: Sequence[Part] = ()


@dataclass(frozen=True)
class SummaryCard:
    """One figure of the summary."""

    name: str
    value: str
    more: str = ""
    mood: str = ""  # good, doubtful or bad, where it is one


@dataclass(frozen=True)
class Page:
    """A whole report."""

    title: str
    subtitle: str
    verdict: str
    headline: str
    reasons: Sequence[str]
    cards: Sequence[SummaryCard]
    sections: Sequence[Section]
    made: str
    about: Sequence[tuple[str, str]] = field(default_factory=tuple)

    @cached_property
    def mood(self) -> str:
        """good, doubtful or bad."""
        return {"promote": "good", "reject": "bad"}.get(self.verdict, "doubtful")


def render(page: Page) -> str:
    """The file."""
    loader = FileSystemLoader(_TEMPLATES)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style = Markup((_TEMPLATES / "report.css").read_text(encoding="utf-8"))
    return environment.get_template(_TEMPLATE).render(page=page, style=style)


def templates() -> bytes:
    """What the page looks like: part of a report's identity, as the code is of a run's."""
    return b"".join(path.read_bytes() for path in sorted(_TEMPLATES.iterdir()) if path.is_file())
