"""What the night learnt from: the partitions' verdicts, and the examples made of them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from reshelve.clickstream.verdicts import Decision
from reshelve.reporting.night import Night
from reshelve.reporting.page import Facts, Part, Section, Table
from reshelve.reporting.words import NONE, count


def data(night: Night) -> Section:
    """The verdict on the night's own partition, and the window before it."""
    tonight, verdicts = night.tonight, night.verdicts
    if tonight is None:
        return Section("data", "Data", "The night's own partition has no verdict.", [])
    lead = f"{tonight.verdict.value}: {tonight.headline}."
    rows = [
        (verdict.partition.isoformat(), verdict.verdict.value, count(verdict.rows_in), count(verdict.rows_quarantined))
        for verdict in reversed(verdicts)
    ]  # fmt: skip
    parts: list[Part] = []
    if tonight.rules:
        parts.append(
            Table(
                ("Rule", "Severity", "What it found"),
                [(broken.rule, broken.severity.value, broken.message) for broken in tonight.rules],
                "Rules that this partition breaks",
                words=3,
            )
        )
    data_window = Table(
        ("Partition", "Verdict", "Rows", "In quarantine"), rows, f"{len(rows)} partitions of the window, newest first",
        words=2, folded=True,
    )  # fmt: skip
    return Section("data", "Data", lead, [*parts, data_window])


def examples(night: Night) -> Section:
    """What the partitions became."""
    found = night.result("examples")
    if not found:
        return Section("examples", "Examples", "No examples were made.", [])
    lead = f"{count(found.get('train'))} examples to learn from, over {count(found.get('items'))} items."
    rows = [
        ("To train", f"{count(found.get('train'))}, of {_span(found.get('train_partitions'))}"),
        ("To validate", f"{count(found.get('validation'))}, of {_span(found.get('validation_partitions'))}"),
        ("Held out for the gate", f"{count(found.get('holdout'))} questions, of {_span(found.get('holdout_partitions'))}"),
        ("Catalogue", f"{count(found.get('items'))} items"),
        ("Rows read", f"{count(found.get('rows_read'))} from {count(found.get('partitions'))} partitions"),
    ]  # fmt: skip
    left_out = found.get("excluded_partitions") or {}
    if left_out:
        rows.append(("Left out", ", ".join(f"{day} ({why})" for day, why in sorted(left_out.items()))))
    return Section("examples", "Examples", lead, [Facts(rows)])


def _span(days: list[str] | None) -> str:
    if not days:
        return NONE
    return days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"


def window_rows(night: Night) -> dict[str, Any]:
    """Rows by day over the whole window, absent days as 0, for drawing."""
    by_day = {verdict.partition: verdict for verdict in night.verdicts}
    last = night.run.partition
    days = [last - timedelta(days=back) for back in reversed(range(night.run.ranker.data.window_days))]
    first = next((place for place, day in enumerate(days) if day in by_day), 0)
    shown = days[first:]
    used = [by_day.get(day) for day in shown]
    return {
        "days": shown,
        "good": [verdict.rows_good if verdict else 0 for verdict in used],
        "held_back": [verdict.rows_quarantined if verdict else 0 for verdict in used],
        "stopped": [day for day, verdict in zip(shown, used, strict=True) if verdict and verdict.verdict is Decision.STOP],
    }  # fmt: skip
