"""What every rule has in common: its name, its severity, and how it asks.

A rule is about each row or about the whole partition. A row rule either says so of one row by itself
(`failing`, an SQL condition) or by the company it keeps (`KeyedRule`: a query for the keys of the rows that
break it). A measured rule is one number of the partition and the range it may lie in.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, model_validator

from reshelve.config.yaml_models import Form, Share, misfit

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
NumberColumn = Literal["position", "quantity", "price", "grade"]
EventTypeName = Literal["impression", "click", "cart", "purchase", "return", "judgement"]


class Severity(StrEnum):
    """What a broken rule costs."""

    STOP = "stop"
    QUARANTINE = "quarantine"
    WARN = "warn"


def refuse_crossed(low: float | None, high: float | None) -> None:
    """What the validator of a rule with `min` and `max` asks. Raises pydantic's ValidationError."""
    if low is not None and high is not None and low > high:
        raise misfit(f"expected at most max ({high:g}), got {low:g}", "min")


@dataclass(frozen=True)
class Range:
    """What a measured number must be: between `low` and `high`, both included; None: no end.

    `said` is what is wrong where it is not, with the numbers in it.
    """

    value: float
    low: float | None
    high: float | None
    said: str


class BaseRule(Form):
    """What every rule says of itself."""

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_]{0,60}$", description="Unique in its file; names the rule in reports."
    )
    description: str = Field(min_length=1, description="A description for people.")
    severity: Severity = Field(description="stop, quarantine (row rules only) or warn.")


class PartitionRule(BaseRule):
    """A rule about the partition as a whole."""

    @model_validator(mode="after")
    def _no_rows_to_set_aside(self) -> PartitionRule:
        if self.severity is Severity.QUARANTINE:
            raise misfit("a rule about the whole partition can stop or warn, not quarantine", "severity")
        return self


class RowRule(BaseRule):
    """A rule about each row. NULL breaks only `not_null`."""

    @abstractmethod
    def failing(self, partition: str) -> str:
        """The SQL condition of a row that breaks the rule; may be NULL, which means it does not."""

    @abstractmethod
    def failure(self) -> str:
        """What is wrong with a row that breaks the rule."""


class TolerantRule(RowRule):
    """A row rule that a share of the rows may break."""

    tolerate: Tolerated = 0.0

    @model_validator(mode="after")
    def _quarantine_tolerates_nothing(self) -> TolerantRule:
        if self.tolerate and self.severity is Severity.QUARANTINE:
            raise misfit("a quarantine rule quarantines every row that breaks it", "tolerate")
        return self


class KeyedRule(TolerantRule):
    """A rule that needs other rows to tell: a query finds the keys, and every row with such a key breaks it."""

    @property
    @abstractmethod
    def keys(self) -> tuple[str, ...]:
        """The columns of `events` that are the key; `_row` is the row itself."""

    @abstractmethod
    def offenders(self, partition: str) -> str:
        """The query over `events` for the distinct keys that break the rule, as columns named like `keys`."""

    @property
    def only(self) -> str:
        """The condition of the rows that are concerned at all."""
        return "true"

    @property
    def alias(self) -> str:
        """The name under which its keys are joined."""
        return f"key_{self.name}"

    def failing(self, partition: str) -> str:
        return f"({self.only}) AND {self.alias}_hit"
