"""What the version weighs, and how long its answers take."""

from __future__ import annotations

from typing import Any

from reshelve.reporting.night import Night
from reshelve.reporting.page import Part, Section, Table
from reshelve.reporting.sections.quality import NAMES
from reshelve.reporting.words import count, figure, milliseconds, share, size


def compression(night: Night) -> Section:
    """Each step: what it cost in agreement, and gave in size and time."""
    found = night.result("compress")
    if not found:
        return Section("compression", "Compression", "Nothing was compressed.", [])
    steps = found.get("steps") or []
    lead = f"{found['precision']} ships."
    if not steps:
        return Section("compression", "Compression", f"{lead} The ranker file names no step.", [])
    rows = [_row(step) for step in steps]
    head = ("Step", "Kept", "Why", "Agreement (Spearman)", "Size before", "after", "of it")
    parts: list[Part] = [Table(head, rows, "Compression steps", words=3)]
    times = [
        (
            f"{step['step']}: {each['batch']} texts of {each['length']} tokens", milliseconds(each["before"]),
            milliseconds(each["after"]), f"{each['after'] / each['before']:.2f}" if each["before"] else "",
        )
        for step in steps
        for each in step.get("latency") or []
    ]  # fmt: skip
    if times:
        parts.append(
            Table(("Batch", "Before", "After", "Share"), times, "Time of the graph, float and compressed")
        )
    return Section("compression", "Compression", lead, parts)


def _row(step: dict[str, Any]) -> tuple[str, ...]:
    before, after = step.get("bytes_before"), step.get("bytes_after")
    of_it = share(after / before) if before and after is not None else ""
    kept = "yes" if step["kept"] else "no"
    return (
        step["step"],
        kept,
        str(step["reason"]),
        figure(step.get("agreement")),
        size(before),
        size(after),
        of_it,
    )


def latency(night: Night) -> Section:
    """The packaged version's own answers, and those in the model server where it was asked beside the champion."""
    packaged, served = night.result("package"), night.result("gate").get("latency") or {}
    if not packaged:
        return Section("latency", "Latency", "Nothing was packaged.", [])
    unit = "histories" if night.run.ranker.kind.over_catalogue else "candidates"
    rows = [
        (f"{batch} {unit}", milliseconds(value))
        for batch, value in (packaged.get("latency_ms") or {}).items()
    ]
    lead = f"The package is {size(packaged.get('bytes'))}, {packaged.get('precision', '')}."
    parts: list[Part] = []
    if served:
        asked = [
            (
                NAMES.get(name, name), count(each["requests"]), count(each["rows"]), milliseconds(each["p50"]),
                milliseconds(each["p95"]), milliseconds(each["p99"]),
            )
            for name, each in served.items()
        ]  # fmt: skip
        head = ("Version", "Requests", "Rows in all", "p50", "p95", "p99")
        parts.append(Table(head, asked, "The gate's questions, asked of a model server over gRPC"))
    parts.append(Table(("Request", "Median"), rows, "The SavedModel in one process"))
    return Section("latency", "Latency", lead, parts)
