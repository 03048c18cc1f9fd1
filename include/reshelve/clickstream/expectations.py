"""The rules as a Great Expectations suite, run by DuckDB over the partition: its results are the verdict.

Great Expectations is asked twice: first for success alone, which lets it skip the work of counting; then
again, with counts, for what failed. Import this module only where it is used: it costs six to nine seconds.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read at its import; a shop's data calls no one

import great_expectations as gx
from great_expectations import expectations as gxe

from reshelve.clickstream import duckdb_dialect
from reshelve.clickstream.rules import (
    Between,
    Columns,
    MaxLength,
    NotNull,
    OneOf,
    QuarantinedShare,
    RowCount,
    RowRule,
    Rule,
)
from reshelve.errors import ConfigurationError

# It would say for each type check that DuckDB is none of its own dialects.
logging.getLogger("great_expectations.expectations.type_comparison").setLevel(logging.ERROR)


@dataclass(frozen=True)
class Broken:
    """A rule that the partition breaks, and how often where it is about rows."""

    rule: Rule
    failed_rows: int | None = None


@lru_cache(maxsize=1)
def _context() -> Any:
    """One context a process: nothing of it is written anywhere."""
    context: Any = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    return context


class Checker:
    """Asks Great Expectations about tables and views of one DuckDB file."""

    def __init__(self, datasource: Any, partition: str) -> None:
        self._datasource = datasource
        self._partition = partition

    def broken(self, table: str, rules: Sequence[Rule], columns: Collection[str] = ()) -> list[Broken]:
        """The rules that `table` breaks, in their order.

        `columns` are those that the table has: the type of one that is missing is not asked for.
        Raises ConfigurationError for a rule that cannot be evaluated.
        """
        asset = self._datasource.add_table_asset(name=table, table_name=table)
        batch = asset.add_batch_definition_whole_table("all").get_batch()
        failed = {
            result.expectation_config.meta["rule"]
            for result in self._ask(batch, rules, columns, "BOOLEAN_ONLY")
            if not result.success
        }
        again = [rule for rule in rules if rule.name in failed]
        counts: dict[str, int] = {}
        for result in self._ask(batch, again, columns, "SUMMARY") if again else ():
            count = _failed_rows(result)
            if count is not None:
                counts[result.expectation_config.meta["rule"]] = count
        return [Broken(rule, counts.get(rule.name)) for rule in again]

    def _ask(self, batch: Any, rules: Sequence[Rule], columns: Collection[str], detail: str) -> list[Any]:
        asked = [made for rule in rules for made in _expectations(rule, columns, self._partition)]
        results = list(
            batch.validate(gx.ExpectationSuite(name=detail, expectations=asked), result_format=detail).results
        )
        for result in results:
            raised = result.exception_info
            if raised.get("raised_exception", True) and not result.success and raised:
                message = raised.get("exception_message") or next(iter(raised.values()))
                name = result.expectation_config.meta["rule"]
                raise ConfigurationError(f"rule {name} could not be evaluated", str(message))
        return results


def _expectations(rule: Rule, columns: Collection[str], partition: str) -> Iterator[Any]:
    """One rule as expectations; each carries the rule's name in its meta."""
    meta = {"rule": rule.name}
    match rule:
        case Columns():
            yield gxe.ExpectTableColumnsToMatchSet(column_set=list(rule.types), exact_match=False, meta=meta)
            for name, types in rule.types.items():
                if name in columns:
                    yield gxe.ExpectColumnValuesToBeInTypeList(column=name, type_list=list(types), meta=meta)
        case RowCount():
            yield gxe.ExpectTableRowCountToBeBetween(min_value=rule.min, max_value=rule.max, meta=meta)
        case QuarantinedShare():
            yield gxe.ExpectColumnMeanToBeBetween(column="_quarantined", max_value=rule.max, meta=meta)
        case NotNull():
            yield gxe.ExpectColumnValuesToNotBeNull(column=rule.column, mostly=1 - rule.tolerate, meta=meta)
        case OneOf():
            yield gxe.ExpectColumnValuesToBeInSet(
                column=rule.column, value_set=rule.values, mostly=1 - rule.tolerate, meta=meta
            )
        case Between():
            yield gxe.ExpectColumnValuesToBeBetween(
                column=rule.column,
                min_value=rule.min,
                max_value=rule.max,
                mostly=1 - rule.tolerate,
                meta=meta,
            )
        case MaxLength():
            yield gxe.ExpectColumnValueLengthsToBeBetween(
                column=rule.column, max_value=rule.max, mostly=1 - rule.tolerate, meta=meta
            )
        case RowRule():  # a condition in SQL: Great Expectations has no such expectation, or none that DuckDB can run
            condition = rule.failing(partition).replace("{", "{{").replace("}", "}}")
            yield gxe.UnexpectedRowsExpectation(
                unexpected_rows_query=f"SELECT _row FROM (SELECT _row, ({condition}) AS failing FROM {{batch}}) WHERE failing",
                meta=meta,
            )


def _failed_rows(result: Any) -> int | None:
    """How many rows failed, where the expectation is about rows."""
    if result.expectation_config.type == "unexpected_rows_expectation":
        return int(result.result["observed_value"])
    count = result.result.get("unexpected_count")
    return None if count is None else int(count)


@contextmanager
def checker(path: Path, partition: str) -> Iterator[Checker]:
    """Great Expectations on the DuckDB file at `path`, for the rules of `partition` (YYYY-MM-DD)."""
    datasource = _context().data_sources.add_sql(name=str(path), connection_string=duckdb_dialect.url(path))
    try:
        yield Checker(datasource, partition)
    finally:
        datasource.get_engine().dispose()
        _context().data_sources.delete(str(path))
