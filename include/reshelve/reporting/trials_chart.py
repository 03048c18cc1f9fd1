"""The trials of tuning as parallel coordinates, each axis as long as the ranker file's range: so an edge can be seen."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure as Drawing

from reshelve.charts import ACCENT, SECOND, SOFT, draw
from reshelve.config.tuning import Choice, LogUniform, Range
from reshelve.notation import plain

_WIDTH, _HEIGHT = 9.0, 2.6  # inches
_EDGE = 0.02  # of an axis: a value so near an end may well have wanted to go on
_MOST_MARKS = 9  # that stand one above the other without touching
_LETTER = 0.075  # inches that a letter of a mark or name takes at most, on the average
_CROWDED = 5  # axes: the names of more are set in two rows


@dataclass(frozen=True)
class Axis:
    """One axis: the height in [0, 1] of each trial, and what is written at which height.

    `open_ended`: its ends are bounds of a range, which tuning may have wanted to leave.
    """

    heights: Sequence[float]
    marks: Sequence[tuple[float, str]]
    open_ended: bool = False

    def at_edge(self, trial: int) -> bool:
        """Whether a trial lies at an end of the range."""
        return self.open_ended and not _EDGE < self.heights[trial] < 1 - _EDGE


def axis_of(values: Sequence[Any], form: Range | None) -> Axis:
    """The axis of a key of tuning.space; without a range (the loss) from the least value to the greatest.

    Choices stand in the file's order, those that no trial took too.
    """
    if isinstance(form, Choice):
        return _of_choices(values, form.choice)
    if not all(isinstance(value, int | float) for value in values):
        return _of_choices(values, sorted({str(value) for value in values}))
    if isinstance(form, LogUniform):
        return _of_range(values, form.loguniform, math.log, open_ended=True)
    if form is not None:
        return _of_range(values, form.uniform, float, open_ended=True)
    return _of_range(values, (min(values), max(values)), float, open_ended=False)


def _of_range(
    values: Sequence[float], ends: tuple[float, float], scale: Callable[[float], float], *, open_ended: bool
) -> Axis:
    low, high = min(ends[0], *values), max(ends[1], *values)
    if low == high:
        return Axis([0.5] * len(values), [(0.5, plain(low, 3))])
    span = scale(high) - scale(low)
    heights = [(scale(value) - scale(low)) / span for value in values]
    return Axis(heights, [(0.0, plain(low, 3)), (1.0, plain(high, 3))], open_ended)


def _of_choices(values: Sequence[Any], choices: Sequence[Any]) -> Axis:
    places = list(dict.fromkeys([*choices, *values]))
    last = max(1, len(places) - 1)
    step = math.ceil(len(places) / _MOST_MARKS)
    marks = [
        (place / last, plain(each, 3) if isinstance(each, float) else str(each))
        for place, each in enumerate(places)
        if place % step == 0
    ]
    return Axis([places.index(value) / last for value in values], marks)


def axes_of(
    columns: Mapping[str, Sequence[Any]], losses: Sequence[float], space: Mapping[str, Range]
) -> dict[str, Axis]:
    """Name → axis, the loss last; paths by their last part, where that names one alone."""
    ends = Counter(name.rpartition(".")[2] for name in columns)
    found = {
        (end if ends[end := name.rpartition(".")[2]] == 1 else name): axis_of(values, space.get(name))
        for name, values in columns.items()
    }
    return {**found, "loss": axis_of(losses, None)}


def parallel(axes: Mapping[str, Axis], losses: Sequence[float], best: int) -> Markup:
    """A line for each trial through its places on the axes; the best one drawn strongly."""

    def paint(drawing: Drawing) -> None:
        panel = drawing.subplots()
        panel.axis("off")
        room = int(_WIDTH / len(axes) / _LETTER)
        crowded = len(axes) > _CROWDED
        for number, (name, axis) in enumerate(axes.items()):
            panel.vlines(number, 0, 1, color=SECOND, linewidth=0.8)
            raised = 0.17 if crowded and number % 2 else 0.0
            title = _shortened(name, room * (2 if crowded else 1) - 2)
            panel.text(number, 1.12 + raised, title, ha="center", va="bottom", fontsize=9)
            for height, text in axis.marks:
                panel.annotate(
                    _shortened(text, room - 1), (number, height), (4, 0), textcoords="offset points", fontsize=8,
                    color=SOFT, va="center",
                )  # fmt: skip
        worst, least = max(losses), min(losses)
        for trial in sorted(range(len(losses)), key=lambda each: (each == best, -losses[each])):
            good, strong = (worst - losses[trial]) / ((worst - least) or 1.0), trial == best
            panel.plot(
                range(len(axes)), [axis.heights[trial] for axis in axes.values()],
                color=ACCENT if strong else SECOND, alpha=1.0 if strong else 0.3 + 0.5 * good,
                linewidth=2.4 if strong else 1.0, marker="o" if strong else None, markersize=5,
            )  # fmt: skip
        panel.set_xlim(-0.3, len(axes) - 0.5)
        panel.set_ylim(-0.08, 1.3 + (0.17 if crowded else 0.0))

    return draw("tuning", _WIDTH, _HEIGHT, paint)


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= max(most, 4) else f"{text[: max(most, 4) - 1]}…"
