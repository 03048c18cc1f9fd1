"""Drawings for a report: small inline SVGs by matplotlib, whose words stay text.

Colour never says anything alone: what differs by it differs by its mark or its line too.
"""

from __future__ import annotations

import math
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
from matplotlib.ticker import MaxNLocator

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
class Interval:
    """One row of a forest plot; `low` and `high` are None where there is no interval."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    strong: bool = True  # else drawn lightly


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

    return draw("curves", 9, 2.6, paint)


def parallel(columns: Mapping[str, Sequence[Any]], losses: Sequence[float], best: int) -> Markup:
    """Parallel coordinates: a line for each trial through its values, the loss last; the best one drawn strongly.

    Numbers that span two decades or more are on a logarithmic axis; words are at places of their own.
    """
    axes_of = {**columns, "loss": losses}
    heights: dict[str, list[float]] = {}
    marks: dict[str, list[tuple[float, str]]] = {}
    for name, values in axes_of.items():
        if all(isinstance(value, int | float) for value in values):
            low, high = min(values), max(values)
            log = low > 0 and high / low >= 100
            scale = math.log10 if log else float
            span = (scale(high) - scale(low)) or 1.0
            heights[name] = [(scale(value) - scale(low)) / span if high > low else 0.5 for value in values]
            marks[name] = [(0.0, f"{low:.3g}"), (1.0, f"{high:.3g}")] if high > low else [(0.5, f"{low:.3g}")]
        else:
            words = sorted({str(value) for value in values})
            place = {
                word: number / max(1, len(words) - 1) if len(words) > 1 else 0.5
                for number, word in enumerate(words)
            }
            heights[name] = [place[str(value)] for value in values]
            marks[name] = [(height, word) for word, height in place.items()]
    names = list(axes_of)

    def paint(drawing: Drawing) -> None:
        axes = drawing.subplots()
        axes.axis("off")
        for number, name in enumerate(names):
            axes.vlines(number, 0, 1, color=SECOND, linewidth=0.8)
            axes.text(number, 1.12, name.rpartition(".")[2], ha="center", va="bottom", fontsize=9)
            for height, text in marks[name]:
                axes.annotate(
                    text,
                    (number, height),
                    (4, 0),
                    textcoords="offset points",
                    fontsize=8,
                    color=SOFT,
                    va="center",
                )
        order = sorted(range(len(losses)), key=lambda trial: (trial == best, -losses[trial]))
        worst, least = max(losses), min(losses)
        for trial in order:
            path = [heights[name][trial] for name in names]
            good = (worst - losses[trial]) / ((worst - least) or 1.0)
            strong = trial == best
            axes.plot(
                range(len(names)),
                path,
                color=ACCENT if strong else SECOND,
                alpha=1.0 if strong else 0.3 + 0.5 * good,
                linewidth=2.4 if strong else 1.0,
                marker="o" if strong else None,
                markersize=5,
            )
        axes.set_xlim(-0.3, len(names) - 0.5)
        axes.set_ylim(-0.08, 1.3)

    return draw("search", 9, 2.6, paint)


def forest(
    name: str, rows: Sequence[Interval], label: str, bounds: Sequence[tuple[float, str]], wide: bool = False
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
        axes.xaxis.set_major_locator(MaxNLocator(6))
        _name_bounds(axes, bounds)

    return draw(name, 9 if wide else 4.6, 0.75 + 0.24 * len(rows), paint)


def _name_bounds(axes: Axes, bounds: Sequence[tuple[float, str]]) -> None:
    for bound, text in bounds:
        if text:
            axes.annotate(
                text, (bound, 1), (0, 2), xycoords=("data", "axes fraction"), textcoords="offset points", fontsize=8,
                color=SOFT, ha="center", va="bottom",
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
