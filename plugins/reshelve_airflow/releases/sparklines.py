"""Small curves as inline SVG, with their meaning in words for those who do not see them."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape

WIDTH, HEIGHT, MARGIN = 132.0, 30.0, 3.0


def sparkline(values: Sequence[float | None], words: str, at_least: float = 1e-9) -> Markup:
    """A curve over `values`, oldest first; None leaves a gap. The top is the highest value, or `at_least`.

    `words` is its whole meaning, as its accessible name.
    """
    known = [value for value in values if value is not None]
    if not known:
        return Markup("")
    top = max(*known, at_least)
    step = (WIDTH - 2 * MARGIN) / max(1, len(values) - 1)
    curves: list[list[str]] = [[]]
    last = ""
    for place, value in enumerate(values):
        if value is None:
            curves.append([])
            continue
        x, y = MARGIN + place * step, HEIGHT - MARGIN - value / top * (HEIGHT - 2 * MARGIN)
        curves[-1].append(f"{x:.1f},{y:.1f}")
        last = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.2"/>'
    lines = "".join(f'<polyline points="{" ".join(curve)}"/>' for curve in curves if len(curve) > 1)
    return Markup(  # only numbers and escaped words
        f'<svg class="spark" role="img" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" width="{WIDTH:g}" height="{HEIGHT:g}" '
        f'aria-label="{escape(words)}"><title>{escape(words)}</title>'
        f'<line x1="0" x2="{WIDTH:g}" y1="{HEIGHT - 1:g}" y2="{HEIGHT - 1:g}"/>{lines}{last}</svg>'
    )
