"""What the night learnt from: the partitions' verdicts, and the examples made of them."""

from __future__ import annotations

import statistics

from reshelve.charts import partitions
from reshelve.reporting.night import Night
from reshelve.reporting.page import FactTable, Figure, Part, Section, Table
from reshelve.reporting.words import NONE, count
from reshelve.validation.verdicts import days_between


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
    parts: list[Part] = [_window(night)]
    if tonight.rules:
        parts.append(
            Table(
                ("Rule", "Severity", "What it found"),
                [(broken.rule, broken.severity.value, broken.message) for broken in tonight.rules],
                "Rules broken by this partition",
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
    lead = f"{count(found.get('train'))} training examples over {count(found.get('items'))} items."
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
    return Section("examples", "Examples", lead, [FactTable(rows)])


def _span(days: list[str] | None) -> str:
    if not days:
        return NONE
    return days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"


def _window(night: Night) -> Figure:
    """Rows by day, days without a partition as nothing."""
    by_day = {verdict.partition: verdict for verdict in night.verdicts}
    first, last = night.verdicts[0].partition, night.run.partition
    days = days_between(first, last)
    good = [by_day[day].rows_good if day in by_day else 0 for day in days]
    held = [by_day[day].rows_quarantined if day in by_day else 0 for day in days]
    alt = (
        f"Rows of {len(days)} days up to {last}: {count(good[-1])} good and {count(held[-1])} "
        f"quarantined tonight; the median day has {count(statistics.median(good))} good ones."
    )
    return Figure(partitions(days, good, held), alt, "Rows by day, good and quarantined", wide=True)
