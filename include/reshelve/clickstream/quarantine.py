"""Which rows break which rule: one pass over the partition gives every row a bit mask, and splits it in two files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from reshelve.clickstream.database import EVENT_TYPES, column, reader, text, write_parquet
from reshelve.clickstream.events import EVENT_SCHEMA
from reshelve.clickstream.rules import RowRule
from reshelve.errors import DataError

GOOD = "good.parquet"
QUARANTINE = "quarantine.parquet"

QUARANTINE_SCHEMA = EVENT_SCHEMA.append(pa.field("broken_rules", pa.list_(pa.string())))
"""The rows held back, each with the names of the rules it breaks."""


@dataclass(frozen=True)
class Split:
    """How many rows went where."""

    rows_in: int
    rows_good: int
    rows_quarantined: int


def mark(db: duckdb.DuckDBPyConnection, rules: tuple[RowRule, ...], partition: str) -> None:
    """Make the table `events` from the view `landed`: the event columns with their own types, and

    - `_row`: the row's place in the partition's files, from 1;
    - `_broken`: bit n is set where it breaks `rules[n]`;
    - `_quarantined`: 1 where any is set, else 0.

    Raises duckdb.Error where a file's pages cannot be read.
    """
    typed = ", ".join(
        f"CAST({column(name)} AS {sql_type}) AS {column(name)}" for name, sql_type in EVENT_TYPES.items()
    )
    bits = [
        # NULL is not broken: without coalesce a NULL row would be in neither file.
        f"(CASE WHEN coalesce(({rule.failing(partition)}), false) THEN {1 << bit} ELSE 0 END)::BIGINT"
        for bit, rule in enumerate(rules)
    ]
    db.execute(
        "CREATE TABLE events AS SELECT *, (_broken <> 0)::INTEGER AS _quarantined FROM ("
        f" SELECT *, {' | '.join(bits) or '0::BIGINT'} AS _broken FROM ("
        f"  SELECT {typed}, row_number() OVER () AS _row FROM landed)) ORDER BY _row"
    )


def counts(db: duckdb.DuckDBPyConnection, rules: tuple[RowRule, ...]) -> dict[str, int]:
    """Rows that break each rule, by its name."""
    if not rules:
        return {}
    sums = ", ".join(f"count(*) FILTER (_broken & {1 << bit} <> 0)" for bit in range(len(rules)))
    row = db.execute(f"SELECT {sums} FROM events").fetchone() or ()
    return {rule.name: int(count) for rule, count in zip(rules, row, strict=True)}


def split(db: duckdb.DuckDBPyConnection, rules: tuple[RowRule, ...], directory: Path) -> Split:
    """Write `good.parquet` (EVENT_SCHEMA) and `quarantine.parquet` (also broken_rules, a list of names).

    Raises DataError where the rows of both are not the rows of `events`.
    """
    columns = ", ".join(map(column, EVENT_TYPES))
    write_parquet(
        db, f"SELECT {columns} FROM events WHERE _broken = 0 ORDER BY _row", directory / GOOD, EVENT_SCHEMA
    )
    hold_back(db, rules, directory, "WHERE _broken <> 0")
    made = Split(
        _rows(db, "events"),
        _rows(db, reader([directory / GOOD])),
        _rows(db, reader([directory / QUARANTINE])),
    )
    if made.rows_in != made.rows_good + made.rows_quarantined:
        raise DataError(
            f"{made.rows_in} rows came in, but {made.rows_good} are good and {made.rows_quarantined} in quarantine",
            "nothing was written; this is a fault of the quarantine, not of the data",
        )
    return made


def hold_back(
    db: duckdb.DuckDBPyConnection, rules: tuple[RowRule, ...], directory: Path, where: str = ""
) -> None:
    """Write the rows of `events` (all of them without a `where`) and the rules each breaks to `quarantine.parquet`."""
    columns = ", ".join(map(column, EVENT_TYPES))
    names = [
        f"CASE WHEN _broken & {1 << bit} <> 0 THEN {text(rule.name)} END" for bit, rule in enumerate(rules)
    ]
    broken = f"list_filter([{', '.join(names)}]::VARCHAR[], lambda name: name IS NOT NULL) AS broken_rules"
    query = f"SELECT {columns}, {broken} FROM events {where} ORDER BY _row"
    write_parquet(db, query, directory / QUARANTINE, QUARANTINE_SCHEMA)


def _rows(db: duckdb.DuckDBPyConnection, table: str) -> int:
    row = db.execute(f"SELECT count(*) FROM {table}").fetchone()
    return int(row[0]) if row else 0
