"""What the version weighs, and how long its answers take."""

from __future__ import annotations

from typing import Any

from reshelve.kind_registry import kind_of
from reshelve.notation import plain
from reshelve.reporting.night import Night
from reshelve.reporting.page import Part, Section, Table
from reshelve.reporting.sections.quality import named
from reshelve.reporting.words import NONE, count, figure, interval, milliseconds, signed_interval, size


def compression(night: Night) -> Section:
    """Each step: what it cost in agreement, and gave in size and time."""
    found = night.result("compress")
    if not found:
        return Section("compression", "Compression", "Nothing was compressed.", [])
    steps = found.get("steps") or []
    lead = f"{found['precision']} ships."
    if not steps:
        return Section("compression", "Compression", f"{lead} The ranker file has no steps.", [])
    head = (
        "Step",
        "Kept",
        "Why",
        "Agreement (Spearman)",
        "Quality",
        "Time of a request",
        "Size before",
        "after",
    )
    parts: list[Part] = [Table(head, [_row(step) for step in steps], "Compression steps", words=3)]
    return Section("compression", "Compression", lead, parts)


def _row(step: dict[str, Any]) -> tuple[str, ...]:
    """One step; quality is the paired change of the gate's metric, time the ratio of medians in the model server."""
    return (
        step["step"],
        "yes" if step["kept"] else "no",
        str(step["reason"]),
        figure(step.get("agreement")),
        signed_interval(step.get("quality")),
        interval((step.get("latency") or {}).get("ratio"), 2),
        size(step.get("bytes_before")),
        size(step.get("bytes_after")),
    )


def latency(night: Night) -> Section:
    """The packaged version's own answers, and those in the model server where it was asked beside the champion."""
    packaged, served = night.result("package"), night.result("gate").get("latency") or {}
    if not packaged:
        return Section("latency", "Latency", "Nothing was packaged.", [])
    unit = f"{kind_of(night.run.ranker.kind).requests.unit}:"
    rows = [
        (f"{unit} {batch}", milliseconds(value))
        for batch, value in sorted((packaged.get("latency_ms") or {}).items(), key=lambda each: int(each[0]))
    ]
    lead = f"The package is {size(packaged.get('bytes'))}, {packaged.get('precision', '')}."
    parts: list[Part] = []
    if served:
        asked = [
            (
                name, count(each["requests"]), _rows_each(each), milliseconds(each["p50"]),
                milliseconds(each["p95"]), milliseconds(each["p99"]),
            )
            for name, each in named(served).items()
        ]  # fmt: skip
        head = ("Version", "Requests", "Rows in each", "p50", "p95", "p99")
        parts.append(
            Table(
                head,
                asked,
                "The gate's questions, sent to a model server over gRPC; times are for whole requests",
            )
        )
    parts.append(Table(("Request", "Median"), rows, "The SavedModel in one process"))
    return Section("latency", "Latency", lead, parts)


def _rows_each(asked: dict[str, Any]) -> str:
    """The mean rows of a request: a time of 30 rows is not one of a single customer's."""
    return plain(asked["rows"] / asked["requests"], 3) if asked["requests"] else NONE
