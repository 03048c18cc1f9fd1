"""The versions of the last nights as one plot: each with its interval, beside what served then, asked the same questions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup, escape

from reshelve.store.manifest import Manifest

NIGHTS = 30
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 760.0, 200.0, 52.0, 10.0, 12.0, 24.0


def trend(manifests: Sequence[Manifest]) -> Markup:
    """The plot, oldest night first; empty where fewer than two versions have a figure of the newest one's metric."""
    metric = manifests[-1].gate.metric if manifests else None
    shown = [
        m for m in manifests if m.gate.metric == metric and _number(m.gate.challenger, "value") is not None
    ]
    if len(shown) < 2:
        return Markup("")
    values = [v for m in shown for v in _values(m)]
    low, high = min(values), max(values)
    if low == high:
        low, high = low - 0.5, high + 0.5

    def y(value: float) -> float:
        return _TOP + (high - value) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    step = (_WIDTH - _LEFT - _RIGHT - 20) / (len(shown) - 1)
    marks = [_mark(m, _LEFT + 10 + place * step, y) for place, m in enumerate(shown)]
    days = [str(m.lineage.partition) for m in shown]
    said = (
        f"{metric} of {len(shown)} versions, nights of {days[0]} to {days[-1]}: "
        + "; ".join(_words(m) for m in shown)
    )  # fmt: skip
    bottom = _HEIGHT - _BOTTOM
    axes = (
        f'<line class="axis" x1="{_LEFT:g}" x2="{_LEFT:g}" y1="{_TOP:g}" y2="{bottom:g}"/>'
        f'<line class="axis" x1="{_LEFT:g}" x2="{_WIDTH:g}" y1="{bottom:g}" y2="{bottom:g}"/>'
        f'<text x="{_LEFT - 6:g}" y="{_TOP + 4:g}" text-anchor="end">{high:.3g}</text>'
        f'<text x="{_LEFT - 6:g}" y="{bottom:g}" text-anchor="end">{low:.3g}</text>'
        f'<text x="{_LEFT + 4:g}" y="{_HEIGHT - 6:g}">{days[0]}</text>'
        f'<text x="{_WIDTH - _RIGHT:g}" y="{_HEIGHT - 6:g}" text-anchor="end">{days[-1]}</text>'
    )
    return Markup(  # only numbers, dates and escaped words
        f'<svg class="trend" role="img" viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" aria-label="{escape(said)}">'
        f"{axes}{''.join(marks)}</svg>"
    )


def _mark(manifest: Manifest, x: float, y: Any) -> str:
    """One night: the version's figure with its interval, and what served then as a ring."""
    own = manifest.gate.challenger
    value, low, high = (_number(own, key) for key in ("value", "low", "high"))
    assert value is not None
    drawn = f"<g><title>{escape(_words(manifest))}</title>"
    if low is not None and high is not None:
        drawn += f'<line class="version" x1="{x:.1f}" x2="{x:.1f}" y1="{y(low):.1f}" y2="{y(high):.1f}"/>'
    champion = _number(manifest.gate.champion, "value")
    if champion is not None:
        drawn += f'<circle class="champion" cx="{x:.1f}" cy="{y(champion):.1f}" r="6"/>'
    verdict = manifest.gate.verdict
    return drawn + f'<circle class="version {verdict}" cx="{x:.1f}" cy="{y(value):.1f}" r="4"/></g>'


def _words(manifest: Manifest) -> str:
    gate = manifest.gate
    champion = _number(gate.champion, "value")
    beside = "" if champion is None else f", {(gate.champion or {}).get('version')} then {champion:.4f}"
    return f"{manifest.version} {_number(gate.challenger, 'value'):.4f} ({gate.verdict}{beside})"


def _values(manifest: Manifest) -> list[float]:
    own, champion = manifest.gate.challenger, manifest.gate.champion
    found = [_number(own, key) for key in ("value", "low", "high")] + [_number(champion, "value")]
    return [value for value in found if value is not None]


def _number(found: dict[str, Any] | None, key: str) -> float | None:
    value = (found or {}).get(key)
    return float(value) if isinstance(value, int | float) else None
