"""Drawings for a report: small inline SVGs by matplotlib, whose words stay text.

Colour never says anything alone: what differs by it differs by its mark or its line too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from io import StringIO
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import FuncFormatter, MaxNLocator

from reshelve.notation import plain

INK, SOFT, LINE, ACCENT, SECOND, WARM = "#1d2526", "#5b6669", "#dfe4e5", "#14606b", "#8a979a", "#b3541e"
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False,
    "axes.edgecolor": SECOND, "axes.labelcolor": SOFT, "axes.titlesize": 9, "axes.titlelocation": "left",
    "xtick.color": SOFT, "ytick.color": SOFT, "text.color": INK, "axes.grid": True, "grid.color": LINE,
    "grid.linewidth": 0.6, "axes.axisbelow": True, "legend.frameon": False, "legend.fontsize": 8.5,
    "path.simplify": True, "lines.linewidth": 1.4,
}  # fmt: skip
_MOST_POINTS = 400  # of a curve: more than a screen can show


@dataclass(frozen=True)
class ForestRow:
    """One row of a forest plot; `low` and `high` are None where there is no interval."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    strong: bool = True  # else drawn lightly


def _in_plain_numbers(axes: Axes) -> None:
    """Tick labels of both axes without an exponent or an offset above the axis."""
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))


def draw(name: str, width: float, height: float, paint: Callable[[Drawing], None]) -> Markup:
    """What `paint` draws, as SVG. `name` keeps ids of several drawings on one page apart. Sizes are in inches."""
    style: Any = {**_STYLE, "svg.hashsalt": name}  # matplotlib names every key in a type
    with mpl.rc_context(style):
        drawing = Drawing(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(drawing)
        paint(drawing)
        buffer = StringIO()
        drawing.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(
        r'<svg[^>]*?(viewBox="[^"]*")[^>]*>', r'<svg \1 aria-hidden="true" focusable="false">', svg, count=1
    )
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = svg.replace('href="#', f'href="#{name}-').replace("url(#", f"url(#{name}-")
    svg = svg.replace("xlink:href", "href").replace("'DejaVu Sans'", "system-ui, sans-serif")
    return Markup(re.sub(r"\n\s*", "\n", svg))


def partitions(days: Sequence[date], good: Sequence[int], held_back: Sequence[int]) -> Markup:
    """Rows of each day of the window, what was held back on top."""

    def paint(drawing: Drawing) -> None:
        axes = drawing.subplots()
        places = range(len(days))
        axes.bar(places, good, color=ACCENT, width=0.75, label="good")
        axes.bar(
            places,
            held_back,
            bottom=good,
            color=WARM,
            width=0.75,
            hatch="////",
            edgecolor="white",
            label="in quarantine",
        )
        step = max(1, len(days) // 8)
        shown = list(places)[::-1][::step][::-1]  # tonight is always named
        axes.set_xticks(shown, [f"{days[place]:%d %b}" for place in shown])
        axes.grid(visible=False, axis="x")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
        axes.set_ylabel("rows")
        axes.legend(loc="upper left", ncols=2, bbox_to_anchor=(0, 1.18), borderaxespad=0)

    return draw("partitions", 9, 2.1, paint)


def curves(points: Sequence[Mapping[str, Any]], metric: str) -> Markup:
    """Loss over the steps, in training and in validation, and beside it the validation metric with its interval."""

    def series(key: str) -> tuple[list[float], list[float]]:
        found = [(point["step"], point[key]) for point in points if key in point]
        found = found[:: max(1, len(found) // _MOST_POINTS)]
        return [step for step, _ in found], [value for _, value in found]

    def paint(drawing: Drawing) -> None:
        left, right = drawing.subplots(1, 2)
        left.plot(*series("loss"), color=SECOND, label="training")
        left.plot(*series("validation_loss"), color=ACCENT, marker="o", markersize=4, label="validation")
        left.set_title("loss")
        left.legend()
        right.plot(*series(f"validation_{metric}"), color=ACCENT, marker="o", markersize=4)
        steps, lows = series(f"validation_{metric}_low")
        right.fill_between(steps, lows, series(f"validation_{metric}_high")[1], color=ACCENT, alpha=0.15)
        right.set_title(f"{metric} in validation")
        right.set_ylim(0, 1.1 * (right.get_ylim()[1] or 1.0))
        for axes in (left, right):
            axes.set_xlabel("step")
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            _in_plain_numbers(axes)

    return draw("curves", 9, 2.6, paint)


def forest(
    name: str, rows: Sequence[ForestRow], label: str, bounds: Sequence[tuple[float, str]], wide: bool = False
) -> Markup:
    """Values with their intervals, one below the other; `bounds` are named vertical lines."""

    def paint(drawing: Drawing) -> None:
        axes = drawing.subplots()
        for bound, _ in bounds:
            axes.axvline(
                bound, color=INK if bound == 0 else WARM, linewidth=0.9, linestyle="-" if bound == 0 else "--"
            )
        for place, row in enumerate(reversed(rows)):
            colour = ACCENT if row.strong else SECOND
            if row.low is not None and row.high is not None:
                axes.plot(
                    [row.low, row.high], [place, place], color=colour, linewidth=1.6 if row.strong else 1.0
                )
            axes.plot(
                row.value,
                place,
                "o" if row.strong else "D",
                color=colour,
                markersize=5 if row.strong else 3.5,
            )
        axes.set_yticks(range(len(rows)), [row.name for row in reversed(rows)])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(6 if wide else 3))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
        _name_bounds(axes, bounds)

    return draw(name, 9 if wide else 4.6, 0.75 + 0.24 * len(rows), paint)


def _name_bounds(axes: Axes, bounds: Sequence[tuple[float, str]]) -> None:
    """The names of at most two bounds. Of two, each is set away from the other, however near their lines are."""
    named = sorted((bound, text) for bound, text in bounds if text)
    assert len(named) <= 2
    sides = [("right", -2), ("left", 2)] if len(named) == 2 else [("center", 0)]
    for (bound, text), (side, away) in zip(named, sides, strict=False):
        axes.annotate(
            text, (bound, 1), (away, 2), xycoords=("data", "axes fraction"), textcoords="offset points", fontsize=8,
            color=SOFT, ha=side, va="bottom",
        )  # fmt: skip


def reliability(tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> Markup:
    """What was predicted against what came true; a mark's size is its share of the predictions."""
    most = max(
        (max(row["predicted"], row["observed"]) for table in tables.values() for row in table), default=1.0
    )
    edge = min(1.0, 1.08 * most) or 1.0
    looks = [(ACCENT, "o", "-"), (SECOND, "s", "--")]

    def paint(drawing: Drawing) -> None:
        axes = drawing.subplots()
        axes.plot([0, edge], [0, edge], color=SOFT, linewidth=0.8, linestyle=":")
        for (name, table), (colour, mark, line) in zip(tables.items(), looks, strict=False):
            found = [(row["predicted"], row["observed"], 15 + 130 * row["share"]) for row in table]
            if not found:
                continue
            predicted, observed, sizes = zip(*found, strict=True)
            axes.plot(predicted, observed, color=colour, linewidth=1, linestyle=line)
            axes.scatter(
                predicted, observed, s=sizes, color=colour, marker=mark, alpha=0.85, linewidths=0, label=name
            )
        axes.set_xlim(0, edge)
        axes.set_ylim(0, edge)
        axes.set_xlabel("predicted")
        axes.set_ylabel("came true")
        axes.legend(loc="upper left")

    return draw("calibration", 4.6, 3.4, paint)
