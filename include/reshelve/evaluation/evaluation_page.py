"""An evaluation as a page of text: one table of metrics with intervals, one of slices, and what to know of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_SLICES = 20  # lines; all of them are in the JSON


def page(result: Mapping[str, Any]) -> list[str]:
    """The lines of the result of `evaluate`."""
    days = f"{result['first']} to {result['last']}" if result["days"] > 1 else result["first"]
    lines = [
        f"{result['ranker']} version {result['version']} on {result['source']}, {days}",
        f"{result['counted']:,} of {result['queries']:,} questions count, in {result['clusters']:,} clusters;"
        f" set {result['question_set']}",
        "",
        *_metrics(result),
    ]
    if result["differences"]:
        lines += ["", f"{result['metric']} of the version minus that of"]
        lines += [
            f"  {name:<14} {one['value']:+.4f}  ({one['low']:+.4f} to {one['high']:+.4f})"
            for name, one in result["differences"].items()
        ]
    if result["slices"]:
        lines += ["", *_slices(result)]
    return [*lines, *_notes(result)]


def _metrics(result: Mapping[str, Any]) -> Iterator[str]:
    names = list(result["metrics"])
    yield "".join([f"{'metric':<12}", *(f"{name:<27}" for name in names)]).rstrip()
    for metric in result["metrics"]["version"]:
        cells = (f"{_interval(result['metrics'][name][metric]):<27}" for name in names)
        yield "".join([f"{metric:<12}", *cells]).rstrip()


def _interval(found: Mapping[str, float] | None) -> str:
    return f"{found['value']:.4f} ({found['low']:.4f} to {found['high']:.4f})" if found else "–"


def _slices(result: Mapping[str, Any]) -> Iterator[str]:
    yield f"{'slice':<28}{'questions':>9}  {result['metric']}"
    shown = sorted(result["slices"].items(), key=lambda one: -one[1]["queries"])
    for name, one in shown[:_SLICES]:
        few = "" if one["enough"] else "  few"
        interval = one["interval"] and {"value": one["values"]["version"], **one["interval"]}
        yield f"{name:<28}{one['queries']:>9,}  {_interval(interval)}{few}"
    if len(shown) > _SLICES:
        yield f"… and {len(shown) - _SLICES} more (--json has them)"


def _notes(result: Mapping[str, Any]) -> Iterator[str]:
    if result["seen"]:
        yield ""
        yield (
            f"The version was trained on {len(result['seen'])} of these days, so it looks better on them "
            "than on others."
        )
    if result["unknown_answers"]:
        yield ""
        yield (
            f"{result['unknown_answers']:,} questions have no relevant item in the version's catalogue, "
            "so it cannot answer them correctly."
        )
    if not result["days_before"]:
        yield ""
        yield "No earlier day is validated, so there are no counts or popularity to compare with."
