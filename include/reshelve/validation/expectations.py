"""The rules as a Great Expectations suite, run over the partition's tables: its results are the verdict.

Great Expectations is asked twice: first for success alone, which lets it skip the work of counting; then
again, with counts, for what failed. Import this module only where it is used: it costs six to nine seconds.

What it has expectations for, it evaluates itself. Rules that it has none for (repetitions, bots, trends) are
numbers in the one row of the table `measures`, and it decides whether each lies in its range; so that they are
the same on DuckDB, Spark and pandas.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read at its import; a shop's data calls no one

import great_expectations as gx
from great_expectations import expectations as gxe

from reshelve.errors import ConfigurationError
from reshelve.validation.row_rules import Between, MaxLength, NotNull, OneOf
from reshelve.validation.rule_base import Range, RowRule
from reshelve.validation.rules import Columns, RowCount, Rule

# It would say for each type check that DuckDB is none of its own dialects.
logging.getLogger("great_expectations.expectations.type_comparison").setLevel(logging.ERROR)

NATIVE = (NotNull, OneOf, Between, MaxLength)
"""The row rules that Great Expectations evaluates itself, on every engine."""


@dataclass(frozen=True)
class Broken:
    """A rule that the partition breaks, and how often where it is about rows."""

    rule: Rule
    failed_rows: int | None = None


@dataclass(frozen=True)
class ExpectationResult:
    """What Great Expectations said of a table: the rules it breaks, in their order, and its results for Data Docs."""

    broken: tuple[Broken, ...] = ()
    results: tuple[Any, ...] = ()


@lru_cache(maxsize=1)
def context() -> Any:
    """One context a process: nothing of it is written anywhere."""
    made: Any = gx.get_context(mode="ephemeral")
    made.variables.progress_bars = {"globally": False}
    # It would write all it knows as YAML, into memory, each time that it is lent a table: an eighth of a small day's time.
    made.variables.save = lambda: None
    return made


def ask(
    batch: Any,
    rules: Sequence[Rule],
    columns: Collection[str] = (),
    measures: Mapping[str, Range] | None = None,
) -> ExpectationResult:
    """What the table of `batch` says to the rules.

    `columns` are those that the table has: the type of one that is missing is not asked for. `measures`: rule
    name → its number, for a batch of the table `measures`, whose one row costs nothing to count. Raises
    ConfigurationError for a rule that cannot be evaluated.
    """
    if not rules:
        return ExpectationResult()
    results = _ask(batch, rules, columns, measures, "BOOLEAN_ONLY" if measures is None else "SUMMARY")
    failed = {rule_of(result) for result in results if not result.success}
    again = [rule for rule in rules if rule.name in failed]
    if measures is not None or not again:
        return ExpectationResult(tuple(Broken(rule) for rule in again), tuple(results))
    counted = _ask(batch, again, columns, measures, "SUMMARY")
    counts = {
        rule_of(result): int(result.result["unexpected_count"])
        for result in counted
        if result.result.get("unexpected_count") is not None
    }
    quiet = [result for result in results if rule_of(result) not in failed]
    return ExpectationResult(tuple(Broken(rule, counts.get(rule.name)) for rule in again), (*quiet, *counted))


def rule_of(result: Any) -> str:
    """The name of the rule that an expectation was made of."""
    return str(result.expectation_config.meta["rule"])


def _ask(
    batch: Any,
    rules: Sequence[Rule],
    columns: Collection[str],
    measures: Mapping[str, Range] | None,
    detail: str,
) -> list[Any]:
    asked = [
        made
        for rule in rules
        for made in (
            _expectations(rule, columns) if measures is None else _of_measure(rule, measures[rule.name])
        )
    ]
    suite = gx.ExpectationSuite(name=detail, expectations=asked)
    results = list(batch.validate(suite, result_format=detail).results)
    for result in results:
        raised = result.exception_info
        if raised.get("raised_exception", True) and not result.success and raised:
            message = raised.get("exception_message") or next(iter(raised.values()))
            raise ConfigurationError(f"rule {rule_of(result)} could not be evaluated", str(message))
    return results


def _of_measure(rule: Rule, measure: Range) -> Iterator[Any]:
    """One number in its range."""
    yield gxe.ExpectColumnMaxToBeBetween(
        column=rule.name, min_value=measure.low, max_value=measure.high, meta={"rule": rule.name}
    )


def _expectations(rule: Rule, columns: Collection[str]) -> Iterator[Any]:
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
        case _:
            raise TypeError(f"{rule.name}: {type(rule).__name__} is asked as a measure")


def of_rows(rule: RowRule, failed: int, rows: int) -> Range:
    """How many rows break a row rule, as a measure."""
    return Range(failed, None, getattr(rule, "tolerate", 0.0) * rows, rule.failure())
