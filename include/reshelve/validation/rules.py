"""The typed rule file (`include/expectations/<name>.yaml`): what a partition is held to, as reviewed data.

A rule is about the whole partition, or about each of its rows. Its severity says what a broken rule costs:

- `stop`: nothing of the partition is used;
- `quarantine` (rows only): the rows that break it are set aside, the others are used;
- `warn`: everything is used, and a person is told.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import duckdb
from pydantic import Field, model_validator

from reshelve.clickstream.database import EVENT_TYPES, column, connect
from reshelve.clickstream.faults import reason
from reshelve.config.yaml_models import Form, line_of, load_form, misfit
from reshelve.errors import ConfigurationError
from reshelve.raw.statements import StatementError, allow_expression
from reshelve.settings import settings
from reshelve.validation.keyed_rules import (
    ClickWithoutImpression,
    ExplodingQuery,
    FastClicks,
    InCatalogue,
    ManyEvents,
    Repeated,
    Titled,
    Unique,
)
from reshelve.validation.measured_rules import (
    Drift,
    MeasuredRule,
    NewItemShare,
    NoNewColumns,
    QuantileShift,
    QuarantinedShare,
    RowCountTrend,
    TypeShare,
)
from reshelve.validation.row_rules import Between, Expression, Late, Matches, MaxLength, NotNull, OneOf
from reshelve.validation.rule_base import (
    EventColumn,
    KeyedRule,
    PartitionRule,
    RowRule,
    Severity,
    refuse_crossed,
)

ColumnType = Literal[
    "BIGINT", "BOOLEAN", "DATE", "DOUBLE", "FLOAT", "INTEGER", "SMALLINT", "TIMESTAMP", "VARCHAR"
]  # fmt: skip

_MOST_ROW_RULES = 63  # of one severity: one bit each of a BIGINT


class _Gatekeeper(PartitionRule):
    @model_validator(mode="after")
    def _always_stops(self) -> _Gatekeeper:
        if self.severity is not Severity.STOP:
            raise misfit(
                "expected stop, because no other rule can be checked if this one is broken", "severity"
            )
        return self


class Readable(_Gatekeeper):
    """Every file of the partition is a whole Parquet file."""

    check: Literal["readable"]


class Columns(_Gatekeeper):
    """Every event column is there with one of these types."""

    check: Literal["columns"]
    types: dict[EventColumn, Annotated[list[ColumnType], Field(min_length=1)]] = Field(
        description="Column → the types it may have."
    )

    @model_validator(mode="after")
    def _all_columns(self) -> Columns:
        missing = [name for name in EVENT_TYPES if name not in self.types]
        if missing:
            raise misfit(f"{', '.join(missing)} not named; every event column has a type", "types")
        return self


class RowCount(PartitionRule):
    """The partition has at least `min` and at most `max` rows."""

    check: Literal["row_count"]
    min: int = Field(1, ge=0)
    max: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _a_range(self) -> RowCount:
        refuse_crossed(self.min, self.max)
        return self

    def failure(self) -> str:
        """What is wrong where the rule is broken."""
        return f"fewer than {self.min:,} rows" + (f" or more than {self.max:,}" if self.max else "")


Rule = Annotated[
    Readable | Columns | RowCount
    | QuarantinedShare | NoNewColumns | RowCountTrend | TypeShare | NewItemShare | Drift | QuantileShift
    | NotNull | OneOf | Between | MaxLength | Matches | Expression | Late
    | Unique | Repeated | ClickWithoutImpression | FastClicks | ManyEvents | ExplodingQuery | InCatalogue | Titled,
    Field(discriminator="check"),
]  # fmt: skip


class RuleFile(Form):
    """All rules of a clickstream, in the order they are reported."""

    title: str = ""
    rules: tuple[Rule, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _whole(self) -> RuleFile:
        names = [rule.name for rule in self.rules]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            second = [place for place, name in enumerate(names) if name == twice[0]][1]
            raise misfit(f"{', '.join(twice)} is named twice", "rules", second, "name")
        for kind, check in ((Readable, "readable"), (Columns, "columns")):
            if sum(isinstance(rule, kind) for rule in self.rules) != 1:
                raise misfit(f"expected exactly one rule with check: {check}", "rules")
        if max(len(self.quarantine), len(self.told)) > _MOST_ROW_RULES:
            raise misfit(
                f"at most {_MOST_ROW_RULES} row rules that set aside, and as many that do not", "rules"
            )
        return self

    @property
    def row_rules(self) -> tuple[RowRule, ...]:
        """The rules about each row."""
        return tuple(rule for rule in self.rules if isinstance(rule, RowRule))

    @property
    def quarantine(self) -> tuple[RowRule, ...]:
        """The row rules that set rows aside; the n-th has bit n of a row's mask."""
        return tuple(rule for rule in self.row_rules if rule.severity is Severity.QUARANTINE)

    @property
    def told(self) -> tuple[RowRule, ...]:
        """The row rules that set nothing aside; likewise."""
        return tuple(rule for rule in self.row_rules if rule.severity is not Severity.QUARANTINE)

    @property
    def weeks_back(self) -> int:
        """How many weeks of history its rules look at."""
        return max((rule.weeks_back for rule in self.rules if isinstance(rule, MeasuredRule)), default=0)

    @property
    def compares_items(self) -> bool:
        """Whether it must be known which items past days had."""
        return any(isinstance(rule, NewItemShare) for rule in self.rules)

    def releasing(self, names: Collection[str]) -> RuleFile:
        """The same rules, those of `names` setting nothing aside: their rows are used, and a person is told."""
        told = {"severity": Severity.WARN}
        rules = tuple(r.model_copy(update=told) if r.name in names else r for r in self.rules)
        return self.model_copy(update={"rules": rules})

    def of_day(self, day: date, zone: str) -> RuleFile:
        """The same rules, for the partition `day` of a source whose days begin by the clocks of `zone`."""
        rules = tuple(r.of_day(day, zone) if isinstance(r, Expression) else r for r in self.rules)
        return self.model_copy(update={"rules": rules})

    def only(self, kind: type[Any]) -> Any:
        """The one rule of `kind`."""
        return next(rule for rule in self.rules if isinstance(rule, kind))

    def digest(self) -> str:
        """12 hex digits over the rules."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]


def rules_path(name: str) -> Path:
    """Where rule file `name` is."""
    return settings().expectations_dir / f"{name}.yaml"


def load_rules(name: str = "clickstream") -> RuleFile:
    """The rule file `name`. Raises ConfigurationError naming file, line and what was expected."""
    path = rules_path(name)
    rules = read_rules(name)
    _bind(path, rules)
    return rules


def read_rules(name: str) -> RuleFile:
    """The same without a look at its SQL, where many files are read often."""
    return load_form(RuleFile, rules_path(name))


def _bind(path: Path, rules: RuleFile) -> None:
    """Let DuckDB bind every row rule on an empty partition, so that a wrong expression is found before any data."""
    columns = ", ".join(f"{column(name)} {sql_type}" for name, sql_type in EVENT_TYPES.items())
    db = connect()
    try:
        db.execute(f"CREATE TABLE events ({columns}, received_time TIMESTAMP, _row BIGINT)")
        db.execute("CREATE TABLE products (item_id VARCHAR, title VARCHAR)")
        for index, rule in enumerate(rules.rules):
            if isinstance(rule, RowRule):
                try:
                    if isinstance(rule, Expression):
                        _allow(db, rule)
                    db.execute(
                        rule.offenders("2000-01-01")
                        if isinstance(rule, KeyedRule)
                        else f"SELECT coalesce(({rule.failing('2000-01-01')}), false) FROM events"
                    )
                except (duckdb.Error, StatementError) as error:
                    key = next((key for key in ("sql", "pattern") if hasattr(rule, key)), "check")
                    line = line_of(path, "rules", index, key)
                    raise ConfigurationError(
                        f"{path}:{line}: rule {rule.name}: {key}: {_said(error)}"
                    ) from error
    finally:
        db.close()


def _allow(db: duckdb.DuckDBPyConnection, rule: Expression) -> None:
    """Raise StatementError where the rule's SQL is more than a condition over a row and the product list."""
    sql = rule.sql.replace("$partition", "(day)").replace("$event_day", "(day)")
    allow_expression(db, sql, {"events", "products"})


def _said(error: duckdb.Error | StatementError) -> str:
    return reason(error) if isinstance(error, duckdb.Error) else str(error)
