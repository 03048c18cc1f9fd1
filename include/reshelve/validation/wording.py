"""What a broken rule and a verdict say to a person."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from reshelve.validation.quarantine import RowCounts
from reshelve.validation.rule_base import Range, RowRule, Severity
from reshelve.validation.rules import Columns, RowCount, Rule
from reshelve.validation.verdicts import BrokenRule


def explain(
    rule: Rule, failed_rows: int | None, rows: int, columns: dict[str, str], measure: Range | None = None
) -> str:
    """What is wrong, in words with numbers."""
    match rule:
        case Columns():
            missing = [name for name in rule.types if name not in columns]
            return "; ".join(filter(None, [_missing(missing), *_wrong_types(rule, columns)]))
        case RowCount():
            return f"the partition has {rows:,} rows: {rule.failure()}"
        case RowRule():
            return f"{failed_rows or 0:,} of {rows:,} rows: {rule.failure()}"
    return measure.said if measure else rule.description


def _missing(names: Sequence[str]) -> str:
    return f"{'columns' if len(names) > 1 else 'column'} missing: {', '.join(names)}" if names else ""


def _wrong_types(rule: Columns, columns: dict[str, str]) -> list[str]:
    from reshelve.validation.duckdb_dialect import type_name

    return [
        f"column {name} is {columns[name]}; expected {' or '.join(types)}"
        for name, types in rule.types.items()
        if name in columns and type_name(columns[name]) not in types
    ]


def headline(source: str, partition: date, split: RowCounts, broken: Sequence[BrokenRule]) -> str:
    """One line on a partition that may be used."""
    line = f"{source} {partition}: {split.rows_in:,} rows, "
    aside = [found for found in broken if found.severity is Severity.QUARANTINE]
    if split.rows_quarantined:
        why = ", ".join(f"{found.rule} {found.failed_rows:,}" for found in aside)
        line += f"{split.rows_quarantined:,} in quarantine ({why})"
    else:
        line += "all good"
    warnings = [found.message for found in broken if found.severity is Severity.WARN]
    return line + (f"; warning: {'; '.join(warnings)}" if warnings else "")
