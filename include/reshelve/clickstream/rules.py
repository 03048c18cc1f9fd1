"""The typed rule file (`include/expectations/<name>.yaml`): what a partition is held to, as reviewed data.

A rule is about the whole partition (`readable`, `columns`, `row_count`, `quarantined_share`) or about each
of its rows. Its severity says what a broken rule costs:

- `stop`: nothing of the partition is used;
- `quarantine` (rows only): the rows that break it are set aside, the others are used;
- `warn`: everything is used, and a person is told.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import duckdb
from pydantic import BaseModel, ConfigDict, Field, model_validator

from reshelve.clickstream.database import EVENT_TYPES, column, connect, reason, text
from reshelve.errors import ConfigurationError
from reshelve.forms import line_of, load_form
from reshelve.settings import settings

Share = Annotated[float, Field(ge=0, le=1)]
Tolerated = Annotated[
    Share, Field(description="Share of the rows that may break the rule (not for quarantine).")
]
EventColumn = Literal[
    "event_id", "event_time", "event_type", "user_id", "session_id", "query",
    "item_id", "item_title", "position", "quantity", "price", "grade", "category", "segment",
]  # fmt: skip
TextColumn = Literal[
    "event_id", "event_type", "user_id", "session_id", "query", "item_id", "item_title", "category", "segment"
]
ColumnType = Literal[
    "BIGINT", "BOOLEAN", "DATE", "DOUBLE", "FLOAT", "INTEGER", "SMALLINT", "TIMESTAMP", "VARCHAR"
]  # fmt: skip
NumberColumn = Literal["position", "quantity", "price", "grade"]

_MOST_QUARANTINE_RULES = 63  # one bit each of a BIGINT


class Severity(StrEnum):
    """What a broken rule costs."""

    STOP = "stop"
    QUARANTINE = "quarantine"
    WARN = "warn"


class _Rule(BaseModel):
    """What every rule says of itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_]{0,60}$", description="Unique in its file; names the rule in reports."
    )
    description: str = Field(min_length=1, description="What is expected, for a person.")
    severity: Severity = Field(description="stop, quarantine (row rules only) or warn.")


class PartitionRule(_Rule):
    """A rule about the partition as a whole."""

    @model_validator(mode="after")
    def _no_rows_to_set_aside(self) -> PartitionRule:
        if self.severity is Severity.QUARANTINE:
            raise ValueError("severity: a rule about the whole partition can stop or warn, not quarantine")
        return self


class _Gatekeeper(PartitionRule):
    @model_validator(mode="after")
    def _always_stops(self) -> _Gatekeeper:
        if self.severity is not Severity.STOP:
            raise ValueError(
                "severity: expected stop, for no other rule can be checked where this one is broken"
            )
        return self


class Readable(_Gatekeeper):
    """Every file of the partition is a whole Parquet file."""

    check: Literal["readable"]


class Columns(_Gatekeeper):
    """Every event column is there with one of these types."""

    check: Literal["columns"]
    types: dict[EventColumn, list[ColumnType]] = Field(description="Column → the types it may have.")

    @model_validator(mode="after")
    def _all_columns(self) -> Columns:
        missing = [name for name in EVENT_TYPES if name not in self.types]
        if missing:
            raise ValueError(f"types: {', '.join(missing)} not named; every event column has a type")
        return self


class RowCount(PartitionRule):
    """The partition has at least `min` and at most `max` rows."""

    check: Literal["row_count"]
    min: int = Field(1, ge=0)
    max: int | None = Field(None, ge=1)

    def failure(self) -> str:
        """What is wrong where the rule is broken."""
        return f"fewer than {self.min:,} rows" + (f" or more than {self.max:,}" if self.max else "")


class QuarantinedShare(PartitionRule):
    """At most `max` of the rows went to quarantine."""

    check: Literal["quarantined_share"]
    max: Share


class RowRule(_Rule):
    """A rule about each row. NULL breaks only `not_null`."""

    @abstractmethod
    def failing(self, partition: str) -> str:
        """The SQL condition of a row that breaks the rule; may be NULL, which means it does not."""

    @abstractmethod
    def failure(self) -> str:
        """What is wrong with a row that breaks the rule."""


class _TolerantRule(RowRule):
    tolerate: Tolerated = 0.0

    @model_validator(mode="after")
    def _quarantine_tolerates_nothing(self) -> _TolerantRule:
        if self.tolerate and self.severity is Severity.QUARANTINE:
            raise ValueError("tolerate: a quarantine rule sets aside every row that breaks it")
        return self


class NotNull(_TolerantRule):
    """The column is known."""

    check: Literal["not_null"]
    column: EventColumn

    def failing(self, partition: str) -> str:
        return f"{column(self.column)} IS NULL"

    def failure(self) -> str:
        return f"{self.column} is missing"


class OneOf(_TolerantRule):
    """The column is one of a few values."""

    check: Literal["one_of"]
    column: TextColumn
    values: list[str] = Field(min_length=1, max_length=100)

    def failing(self, partition: str) -> str:
        return f"{column(self.column)} NOT IN ({', '.join(map(text, self.values))})"

    def failure(self) -> str:
        return f"{self.column} is none of {', '.join(self.values)}"


class Between(_TolerantRule):
    """The number lies in a range, its ends included."""

    check: Literal["between"]
    column: NumberColumn
    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _an_end(self) -> Between:
        if self.min is None and self.max is None:
            raise ValueError("min or max is needed")
        return self

    def failing(self, partition: str) -> str:
        ends = [
            f"{column(self.column)} {sign} {end!r}"
            for sign, end in (("<", self.min), (">", self.max))
            if end is not None
        ]
        return " OR ".join(ends)

    def failure(self) -> str:
        ends = [
            f"{word} {end:g}"
            for word, end in (("at least", self.min), ("at most", self.max))
            if end is not None
        ]
        return f"{self.column} is not {' and '.join(ends)}"


class MaxLength(_TolerantRule):
    """The text has at most so many characters."""

    check: Literal["max_length"]
    column: TextColumn
    max: int = Field(ge=1)

    def failing(self, partition: str) -> str:
        return f"length({column(self.column)}) > {self.max}"

    def failure(self) -> str:
        return f"{self.column} is longer than {self.max:,} characters"


class Unique(RowRule):
    """No earlier row of the partition has the same value: the first is kept, its repetitions break the rule."""

    check: Literal["unique"]
    column: EventColumn

    def failing(self, partition: str) -> str:
        name = column(self.column)
        return f"{name} IS NOT NULL AND row_number() OVER (PARTITION BY {name} ORDER BY _row) > 1"

    def failure(self) -> str:
        return f"{self.column} occurred before"


class Matches(RowRule):
    """The text contains a match of a regular expression (RE2; anchor it with ^ and $)."""

    check: Literal["matches"]
    column: TextColumn
    pattern: str = Field(min_length=1)

    def failing(self, partition: str) -> str:
        return f"NOT regexp_matches({column(self.column)}, {text(self.pattern)})"

    def failure(self) -> str:
        return f"{self.column} does not match {self.pattern}"


class Expression(RowRule):
    """A DuckDB condition over the row; `$partition` is the partition's day."""

    check: Literal["expression"]
    sql: str = Field(min_length=1)

    def failing(self, partition: str) -> str:
        return f"NOT ({self.sql.replace('$partition', f'DATE {text(partition)}')})"

    def failure(self) -> str:
        return f"not so: {self.description}"


Rule = Annotated[
    Readable | Columns | RowCount | QuarantinedShare
    | NotNull | OneOf | Between | MaxLength | Unique | Matches | Expression,
    Field(discriminator="check"),
]  # fmt: skip


class RuleFile(BaseModel):
    """All rules of a clickstream, in the order they are reported."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = ""
    rules: tuple[Rule, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _whole(self) -> RuleFile:
        names = [rule.name for rule in self.rules]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"rules: {', '.join(twice)} is named twice")
        for kind, check in ((Readable, "readable"), (Columns, "columns")):
            if sum(isinstance(rule, kind) for rule in self.rules) != 1:
                raise ValueError(f"rules: expected exactly one rule with check: {check}")
        if len(self.quarantine) > _MOST_QUARANTINE_RULES:
            raise ValueError(f"rules: at most {_MOST_QUARANTINE_RULES} quarantine rules")
        return self

    @property
    def row_rules(self) -> tuple[RowRule, ...]:
        """The rules about each row."""
        return tuple(rule for rule in self.rules if isinstance(rule, RowRule))

    @property
    def quarantine(self) -> tuple[RowRule, ...]:
        """The row rules that set rows aside; the n-th has bit n of a row's mask."""
        return tuple(rule for rule in self.row_rules if rule.severity is Severity.QUARANTINE)

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
    rules = load_form(RuleFile, path)
    _bind(path, rules)
    return rules


def _bind(path: Path, rules: RuleFile) -> None:
    """Let DuckDB bind every row rule on an empty partition, so that a wrong expression is found before any data."""
    columns = ", ".join(f"{column(name)} {sql_type}" for name, sql_type in EVENT_TYPES.items())
    db = connect()
    try:
        db.execute(f"CREATE TABLE events ({columns}, _row BIGINT)")
        for index, rule in enumerate(rules.rules):
            if isinstance(rule, RowRule):
                try:
                    db.execute(f"SELECT coalesce(({rule.failing('2000-01-01')}), false) FROM events")
                except duckdb.Error as error:
                    key = next((key for key in ("sql", "pattern") if hasattr(rule, key)), "check")
                    line = line_of(path, "rules", index, key)
                    raise ConfigurationError(
                        f"{path}:{line}: rule {rule.name}: {key}: {reason(error)}"
                    ) from error
    finally:
        db.close()
