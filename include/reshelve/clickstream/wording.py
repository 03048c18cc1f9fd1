"""What a broken rule and a verdict say to a person."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import duckdb

from reshelve.clickstream.quarantine import Split
from reshelve.clickstream.rules import Columns, QuarantinedShare, RowCount, RowRule, Rule, Severity
from reshelve.clickstream.verdicts import BrokenRule


def count(db: duckdb.DuckDBPyConnection, table: str) -> int:
    """Rows of a table, a view, or a table with its WHERE."""
    row = db.execute(f"SELECT count(*) FROM {table}").fetchone()
    return int(row[0]) if row else 0


def explain(
    db: duckdb.DuckDBPyConnection, rule: Rule, failed_rows: int | None, columns: dict[str, str]
) -> tuple[str, int | None]:
    """What is wrong, and how many rows are concerned (None where that is no question of rows)."""
    match rule:
        case Columns():
            missing = [name for name in rule.types if name not in columns]
            return "; ".join(filter(None, [_missing(missing), *_wrong_types(rule, columns)])), None
        case RowCount():
            rows = count(db, "landed")
            return f"the partition has {rows:,} rows: {rule.failure()}", rows
        case QuarantinedShare():
            rows, bad = count(db, "events"), count(db, "events WHERE _broken <> 0")
            return f"{bad:,} of {rows:,} rows ({bad / rows:.1%}) are bad; at most {rule.max:.1%} may be", bad
        case RowRule():
            rows = count(db, "events")
            return f"{failed_rows or 0:,} of {rows:,} rows: {rule.failure()}", failed_rows
    return rule.description, failed_rows


def _missing(names: Sequence[str]) -> str:
    return f"{'columns' if len(names) > 1 else 'column'} missing: {', '.join(names)}" if names else ""


def _wrong_types(rule: Columns, columns: dict[str, str]) -> list[str]:
    from reshelve.clickstream.duckdb_dialect import type_name

    return [
        f"column {name} is {columns[name]}; expected {' or '.join(types)}"
        for name, types in rule.types.items()
        if name in columns and type_name(columns[name]) not in types
    ]


def headline(source: str, partition: date, split: Split, broken: Sequence[BrokenRule]) -> str:
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
