"""The rules that one row breaks by itself."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Literal

from pydantic import Field, model_validator

from reshelve.clickstream.database import column, text
from reshelve.clickstream.days import day_limits
from reshelve.notation import plain
from reshelve.validation.rule_base import (
    EventColumn,
    NumberColumn,
    RowRule,
    TextColumn,
    TolerantRule,
    refuse_crossed,
)


class NotNull(TolerantRule):
    """The column is known."""

    check: Literal["not_null"]
    column: EventColumn

    def failing(self, partition: str) -> str:
        return f"{column(self.column)} IS NULL"

    def failure(self) -> str:
        return f"{self.column} is missing"


class OneOf(TolerantRule):
    """The column is one of a few values."""

    check: Literal["one_of"]
    column: TextColumn
    values: list[str] = Field(min_length=1, max_length=100)

    def failing(self, partition: str) -> str:
        return f"{column(self.column)} NOT IN ({', '.join(map(text, self.values))})"

    def failure(self) -> str:
        return f"{self.column} is none of {', '.join(self.values)}"


class Between(TolerantRule):
    """The number lies in a range, its ends included."""

    check: Literal["between"]
    column: NumberColumn
    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _a_range(self) -> Between:
        if self.min is None and self.max is None:
            raise ValueError("min or max is needed")
        refuse_crossed(self.min, self.max)
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
            f"{word} {plain(end)}"
            for word, end in (("at least", self.min), ("at most", self.max))
            if end is not None
        ]
        return f"{self.column} is not {' and '.join(ends)}"


class MaxLength(TolerantRule):
    """The text has at most so many characters."""

    check: Literal["max_length"]
    column: TextColumn
    max: int = Field(ge=1)

    def failing(self, partition: str) -> str:
        return f"length({column(self.column)}) > {self.max}"

    def failure(self) -> str:
        return f"{self.column} is longer than {self.max:,} characters"


class Matches(RowRule):
    """The text contains a match of a regular expression (RE2; anchor it with ^ and $)."""

    check: Literal["matches"]
    column: TextColumn
    pattern: str = Field(min_length=1)

    def failing(self, partition: str) -> str:
        return f"NOT regexp_matches({column(self.column)}, {text(self.pattern)})"

    def failure(self) -> str:
        return f"{self.column} does not match {self.pattern}"


class Expression(TolerantRule):
    """A condition in SQL over the row; `$partition` is the partition's day, `$event_day` that of `event_time` by the clocks of
    the source's `time_zone` (the day before and the day after stand for all others)."""

    check: Literal["expression"]
    sql: str = Field(min_length=1)

    def failing(self, partition: str) -> str:
        sql = self.of_day(date.fromisoformat(partition), "UTC").sql
        return f"NOT ({sql.replace('$partition', f'DATE {text(partition)}')})"

    def of_day(self, day: date, zone: str) -> Expression:
        """The same, for a partition of a source whose days begin by the clocks of `zone`."""
        if "$event_day" not in self.sql:
            return self
        begins, ends = (f"TIMESTAMP {text(moment)}" for moment in day_limits(day, zone))
        before, after = (f"DATE {text(day + timedelta(days=days))}" for days in (-1, 1))
        case = (
            f"(CASE WHEN event_time < {begins} THEN {before} WHEN event_time >= {ends} THEN {after}"
            f" WHEN event_time IS NOT NULL THEN DATE {text(day)} END)"
        )
        return self.model_copy(update={"sql": self.sql.replace("$event_day", case)})

    def failure(self) -> str:
        return f"not so: {self.description}"


class Late(TolerantRule):
    """The event was received soon after it happened. Asked where the landed files have `received_time`."""

    check: Literal["late"]
    max_hours: float = Field(gt=0, description="The longest time between event_time and received_time.")

    def failing(self, partition: str) -> str:
        return f"epoch(received_time) - epoch(event_time) > {self.max_hours * 3600!r}"

    def failure(self) -> str:
        return f"received more than {plain(self.max_hours)} hours after it happened"
