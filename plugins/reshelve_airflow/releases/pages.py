"""From what was read to HTML: one Jinja environment that escapes everything, and the words for times and shares."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from reshelve.notation import plain

HERE = Path(__file__).parent
STYLE = (HERE / "style.css").read_text()
THEME = (HERE / "theme.js").read_text()


def ago(seconds: float) -> str:
    """`42 s`, `5 min`, `3 h`, `12 days`."""
    for unit, size, most in (("s", 1, 90), ("min", 60, 90), ("h", 3600, 48)):
        if seconds < most * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:,.0f} days"


def age(at: datetime) -> str:
    """How long ago a moment was."""
    return ago(max(0.0, (datetime.now(UTC) - at).total_seconds()))


def share(value: float | None) -> str:
    """0.05 → `5 %`."""
    return "–" if value is None else f"{plain(100 * value, 3)} %"


def moment(at: datetime | None) -> str:
    """`2011-08-30 04:12 UTC`."""
    return "" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def figure(value: Any, digits: int = 4) -> str:
    """A number for a table; `–` for none."""
    return f"{value:.{digits}f}" if isinstance(value, int | float) else "–"


def size(count: int) -> str:
    """Bytes as megabytes."""
    return f"{count / 1e6:,.1f} MB"


def code(text: str) -> Markup:
    """Our own words, with what stands between backticks as code."""
    parts = re.split(r"`([^`]+)`", text)
    return Markup("").join(Markup("<code>{}</code>").format(p) if n % 2 else p for n, p in enumerate(parts))


def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        ago=ago,
        age=age,
        share=share,
        moment=moment,
        code=code,
        figure=figure,
        size=size,
        path=lambda text: quote(str(text), safe=""),
    )
    return made


_PAGES = _environment()


def compile_templates() -> None:
    """Load every page, so that the first one asked for is as quick as the next."""
    for name in _PAGES.list_templates():
        _PAGES.get_template(name)


def render(template: str, **context: Any) -> str:
    """One page as HTML."""
    return _PAGES.get_template(template).render(**context)
