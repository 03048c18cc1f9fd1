"""Which rows break which rule, and the one pass that puts every row into one of two files.

Rows that break nothing leave no trace but in the good file: `marks` holds a line for the others alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from reshelve.clickstream.database import column
from reshelve.clickstream.events import EVENT_SCHEMA
from reshelve.clickstream.masks import mask_table
from reshelve.errors import DataError
from reshelve.files import partial_of
from reshelve.logs import logger
from reshelve.progress import Progress
from reshelve.validation.engine import DuckDBEngine, Engine
from reshelve.validation.rule_base import KeyedRule, RowRule
from reshelve.validation.rules import RuleFile

GOOD = "good.parquet"
QUARANTINE = "quarantine.parquet"
_ROW_GROUP = 122_880

QUARANTINE_SCHEMA = EVENT_SCHEMA.append(pa.field("broken_rules", pa.list_(pa.string())))
"""The rows held back, each with the names of the rules it breaks."""


@dataclass(frozen=True)
class RowCounts:
    """How many rows went where."""

    rows_in: int
    rows_good: int
    rows_quarantined: int
    masked: int  # rows in whose free texts something was masked


def mark(engine: Engine, rules: RuleFile, asked: Sequence[RowRule], partition: str) -> None:
    """Make the table `marks`, one line for each row of `events` that breaks any rule of `asked`:

    - `_row`: the row;
    - `_aside`: bit n is set where it breaks `rules.quarantine[n]`;
    - `_told`: bit n is set where it breaks `rules.told[n]`.

    A rule that is not asked is broken by none. Raises what the engine raises where a file cannot be read.
    """
    conditions: dict[str, str] = {}
    carried, joins = "e.*", ""
    for rule in asked:
        if isinstance(rule, KeyedRule):
            keys = ", ".join(map(column, rule.keys))
            offenders = rule.offenders(partition)
            engine.keep(rule.alias, f"SELECT {keys}, true AS _hit FROM ({offenders}) AS found")
            if not engine.rows(f"SELECT 1 FROM {rule.alias} LIMIT 1"):
                continue  # the usual case: a join less
            same = " AND ".join(f"e.{column(key)} = {rule.alias}.{column(key)}" for key in rule.keys)
            joins += f" LEFT JOIN {rule.alias} ON {same}"
            carried += f", {rule.alias}._hit AS {rule.alias}_hit"
        conditions[rule.name] = rule.failing(partition)
    aside, told = _mask(rules.quarantine, conditions), _mask(rules.told, conditions)
    engine.keep(
        "marks",
        f"SELECT _row, _aside, _told FROM (SELECT _row, {aside} AS _aside, {told} AS _told"
        f" FROM (SELECT {carried} FROM events AS e{joins}) AS joined) AS masked WHERE _aside <> 0 OR _told <> 0",
    )


def _mask(rules: Sequence[RowRule], conditions: dict[str, str]) -> str:
    # NULL is not broken: without coalesce a NULL row would be in neither file.
    bits = [
        f"(CASE WHEN coalesce(({conditions[rule.name]}), false) THEN CAST({1 << bit} AS BIGINT) ELSE CAST(0 AS BIGINT) END)"
        for bit, rule in enumerate(rules)
        if rule.name in conditions
    ]
    return " | ".join(bits) or "CAST(0 AS BIGINT)"


def counts(engine: Engine, rules: RuleFile) -> dict[str, int]:
    """Rows that break each row rule, by its name."""
    sums = {
        rule.name: f"count(CASE WHEN {mask} & {1 << bit} <> 0 THEN 1 END)"
        for mask, some in (("_aside", rules.quarantine), ("_told", rules.told))
        for bit, rule in enumerate(some)
    }
    if not sums:
        return {}
    (row,) = engine.rows(f"SELECT {', '.join(sums.values())} FROM marks")
    return {name: int(count) for name, count in zip(sums, row, strict=True)}


def split(
    engine: DuckDBEngine, rules: RuleFile, directory: Path, rows_in: int, *, good: bool = True
) -> RowCounts:
    """Write `good.parquet` (EVENT_SCHEMA) and `quarantine.parquet` (also broken_rules, a list of names).

    Free texts are masked in both: another program may have landed them.
    Without `good` every row goes to quarantine, and there is no `good.parquet`. Either file appears when both are
    whole. Raises DataError where the rows of both are not the `rows_in` of the landed files.
    """
    partial = {name: partial_of(directory / name) for name in (GOOD, QUARANTINE)}
    marks = engine.table("SELECT _row, _aside FROM marks WHERE _aside <> 0 ORDER BY _row")
    names = [rule.name for rule in rules.quarantine]
    progress = Progress(logger(stage="validate"), "writing", "rows", rows_in)
    masked = 0
    with (
        _Writer(partial[GOOD], EVENT_SCHEMA) as kept,
        _Writer(partial[QUARANTINE], QUARANTINE_SCHEMA) as aside,
    ):
        for batch in engine.batches():
            progress.add(len(batch))
            rows = pa.Table.from_batches([batch.drop_columns(["_row"])]).cast(EVENT_SCHEMA)
            table, changed = mask_table(rows)
            masked += changed
            masks = _of_rows(marks, batch["_row"].to_numpy())
            bad = pa.array(masks != 0) if good else pa.array([True] * len(masks))
            if not pc.any(bad).as_py():
                kept.write(table)
                continue
            kept.write(table.filter(pc.invert(bad)))
            broken = [_names(mask, names) for mask in masks[bad.to_numpy(zero_copy_only=False)].tolist()]
            listed = pa.array(broken, pa.list_(pa.string()))
            aside.write(table.filter(bad).append_column(QUARANTINE_SCHEMA.field("broken_rules"), listed))
    made = RowCounts(rows_in, _rows(partial[GOOD]), _rows(partial[QUARANTINE]), masked)
    if made.rows_in != made.rows_good + made.rows_quarantined:
        raise DataError(
            f"{made.rows_in} rows came in, but {made.rows_good} are good and {made.rows_quarantined} in quarantine",
            "nothing was written; this is a bug in the quarantine, not bad data",
        )
    if not good:
        partial.pop(GOOD).unlink()
    for name, path in partial.items():
        path.rename(directory / name)
    return made


def _of_rows(marks: pa.Table, rows: np.ndarray) -> np.ndarray:
    """The mask of each of `rows`, 0 where there is none; `marks` is in the order of its rows."""
    known, masks = marks["_row"].to_numpy(), marks["_aside"].to_numpy()
    found = np.zeros(len(rows), dtype=np.int64)
    if len(known):
        place = np.minimum(np.searchsorted(known, rows), len(known) - 1)
        same = known[place] == rows
        found[same] = masks[place[same]]
    return found


def _names(mask: int, names: Sequence[str]) -> list[str]:
    return [name for bit, name in enumerate(names) if mask & (1 << bit)]


class _Writer:
    """A Parquet file in row groups of a useful size, however few rows come at a time."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._file = pq.ParquetWriter(path, schema, compression="zstd")
        self._waiting: list[pa.Table] = []

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._file.close()

    def write(self, table: pa.Table) -> None:
        """Add rows."""
        self._waiting.append(table)
        if sum(map(len, self._waiting)) >= _ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._file.write_table(pa.concat_tables(self._waiting))
        self._waiting = []


def _rows(path: Path) -> int:
    return int(pq.read_metadata(path).num_rows)
