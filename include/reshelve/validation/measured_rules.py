"""The rules about a partition as one number: how many rows, which share, how far from the trailing weeks.

Each says what the number is and the range it must lie in, or None where there is too little to tell: a rule
that has nothing to compare with is not asked, and the report says so.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from datetime import timedelta
from statistics import median
from typing import Literal

from pydantic import Field, model_validator

from reshelve.config.yaml_models import Share, misfit
from reshelve.notation import plain
from reshelve.statistics.normal import THREE_SIGMA
from reshelve.statistics.rates import binomial_error, poisson_error
from reshelve.validation.drift import stability
from reshelve.validation.profile import Profile, quantile, total
from reshelve.validation.rule_base import EventTypeName, PartitionRule, Range, refuse_crossed


@dataclass(frozen=True)
class PartitionFacts:
    """What is known of a partition when its measured rules are asked.

    `history`: the usable partitions of the trailing weeks, oldest first. `item_rows` and `new_rows`: good rows
    that name an item, and those whose item no trailing partition had.
    """

    profile: Profile
    quarantined: int
    history: tuple[Profile, ...] = ()
    item_rows: int = 0
    new_rows: int = 0
    extra_columns: tuple[str, ...] = ()

    def trailing(self, weeks: int) -> tuple[Profile, ...]:
        """The history's last `weeks`."""
        first = self.profile.partition - timedelta(weeks=weeks)
        return tuple(past for past in self.history if past.partition >= first)


class MeasuredRule(PartitionRule):
    """A rule about one number of the partition."""

    @abstractmethod
    def measured(self, facts: PartitionFacts) -> Range | None:
        """The number and its range, or None where there is too little to tell."""

    @property
    def weeks_back(self) -> int:
        """How many weeks of history it looks at."""
        return 0


class _TrailingRule(MeasuredRule):
    weeks: int = Field(4, ge=1, le=52, description="Number of weeks to compare with.")

    @property
    def weeks_back(self) -> int:
        return self.weeks


class QuarantinedShare(MeasuredRule):
    """At most `max` of the rows went to quarantine."""

    check: Literal["quarantined_share"]
    max: Share

    def measured(self, facts: PartitionFacts) -> Range | None:
        rows, bad = facts.profile.rows, facts.quarantined
        if not rows:  # allowed by the rules; a share of nothing is no number
            return None
        said = f"{bad:,} of {rows:,} rows ({bad / rows:.1%}) are bad; at most {self.max:.1%} may be"
        return Range(bad / rows, None, self.max, said)


class NoNewColumns(MeasuredRule):
    """The landed files have the event columns and those named here, no others."""

    check: Literal["no_new_columns"]
    known: tuple[str, ...] = Field(("received_time",), description="Further columns that are known.")

    def measured(self, facts: PartitionFacts) -> Range | None:
        new = [name for name in facts.extra_columns if name not in self.known]
        return Range(len(new), None, 0, f"new {'columns' if len(new) > 1 else 'column'}: {', '.join(new)}")


class RowCountTrend(_TrailingRule):
    """The rows of a day are of the order of the same weekday's in the trailing weeks (their median)."""

    check: Literal["row_count_trend"]
    min_ratio: float = Field(0.5, gt=0, lt=1)
    max_ratio: float = Field(2.0, gt=1)
    least: int = Field(
        2,
        ge=1,
        description="Minimum number of past days of that weekday; with fewer the rule is not evaluated.",
    )

    @model_validator(mode="after")
    def _can_be_asked(self) -> RowCountTrend:
        if self.least > self.weeks:
            raise misfit(f"expected at most weeks ({self.weeks}): each has one such day", "least")
        return self

    def measured(self, facts: PartitionFacts) -> Range | None:
        day = facts.profile.partition
        same = [past.rows for past in facts.trailing(self.weeks) if past.partition.weekday() == day.weekday()]
        if len(same) < self.least or not median(same):
            return None
        usual = median(same)
        noise = THREE_SIGMA * poisson_error(usual)  # of a count, were nothing else at work
        said = f"{facts.profile.rows:,} rows; the {len(same)} trailing {day:%A}s had {usual:,.0f} (median)"
        return Range(facts.profile.rows, self.min_ratio * usual - noise, self.max_ratio * usual + noise, said)


class TypeShare(MeasuredRule):
    """The share of an event type lies in a range; broken only where more than chance puts it outside."""

    check: Literal["type_share"]
    event_type: EventTypeName
    min: Share = 0.0
    max: Share = 1.0
    least: int = Field(
        1000, ge=1, description="Minimum number of good rows; with fewer the rule is not evaluated."
    )

    @model_validator(mode="after")
    def _a_range(self) -> TypeShare:
        refuse_crossed(self.min, self.max)
        return self

    def measured(self, facts: PartitionFacts) -> Range | None:
        rows = facts.profile.good
        if rows < self.least:
            return None
        share = facts.profile.types.get(self.event_type, 0) / rows
        low, high = (
            end + sign * THREE_SIGMA * binomial_error(end, rows)
            for end, sign in ((self.min, -1), (self.max, 1))
        )
        said = f"{share:.2%} of the events are {self.event_type}; expected {self.min:.2%} to {self.max:.2%}"
        return Range(share, low, high, said)


class NewItemShare(_TrailingRule):
    """At most `max` of the events are on items that no trailing day had."""

    check: Literal["new_item_share"]
    max: Share
    least_days: int = Field(
        7, ge=1, description="Minimum number of trailing partitions; with fewer the rule is not evaluated."
    )

    @model_validator(mode="after")
    def _can_be_asked(self) -> NewItemShare:
        if self.least_days > 7 * self.weeks:
            raise misfit(f"expected at most the {7 * self.weeks} days of weeks ({self.weeks})", "least_days")
        return self

    def measured(self, facts: PartitionFacts) -> Range | None:
        if len(facts.trailing(self.weeks)) < self.least_days or not facts.item_rows:
            return None
        share = facts.new_rows / facts.item_rows
        noise = THREE_SIGMA * binomial_error(self.max, facts.item_rows)
        said = f"{share:.1%} of the events are on items that were never seen in {self.weeks} weeks; at most {self.max:.1%} may be"
        return Range(share, None, self.max + noise, said)


class Drift(_TrailingRule):
    """The distribution of a column is that of the trailing weeks: population stability index at most `max`.

    0.1 is a small change and 0.25 a large one by custom. Broken only where the index is also more than chance gives.
    """

    check: Literal["drift"]
    column: Literal["price", "quantity", "position", "grade", "hour", "event_type"]
    max: float = Field(0.25, gt=0)
    least: int = Field(
        500, ge=1, description="Minimum number of rows on each side; with fewer the rule is not evaluated."
    )

    def measured(self, facts: PartitionFacts) -> Range | None:
        today = facts.profile.histograms.get(self.column, {})
        before = total(facts.trailing(self.weeks), self.column)
        if min(sum(today.values()), sum(before.values())) < self.least:
            return None
        found = stability(today, before)
        said = (
            f"the distribution of {self.column} shifted: population stability index {found.psi:.2f}, at "
            f"most {self.max:.2f} may be"
        )
        return Range(found.psi, None, self.max + found.chance, said)


class QuantileShift(_TrailingRule):
    """A quantile of a number is at most `max_ratio` times, and at least a `max_ratio`-th of, the trailing weeks'."""

    check: Literal["quantile_shift"]
    column: Literal["price", "quantity", "position", "grade"]
    quantile: float = Field(0.5, gt=0, lt=1)
    max_ratio: float = Field(2.0, gt=1)
    least: int = Field(
        500, ge=1, description="Minimum number of rows on each side; with fewer the rule is not evaluated."
    )

    def measured(self, facts: PartitionFacts) -> Range | None:
        today = facts.profile.histograms.get(self.column, {})
        before = total(facts.trailing(self.weeks), self.column)
        if min(sum(today.values()), sum(before.values())) < self.least:
            return None
        now, usual = quantile(today, self.quantile), quantile(before, self.quantile)
        rows = sum(today.values())
        low, high = self._usual(before, rows, -1), self._usual(before, rows, 1)
        if usual <= 0:
            return None
        said = (
            f"the {self.quantile:.0%} quantile of {self.column} is {plain(now, 3)}; it was {plain(usual, 3)}"
        )
        return Range(now, low / self.max_ratio, high * self.max_ratio, said)

    def _usual(self, before: dict[str, int], rows: int, sign: int) -> float:
        """The reference's quantile, its share moved by what chance does with so many rows."""
        noise = THREE_SIGMA * binomial_error(self.quantile, rows)
        return quantile(before, min(0.999, max(0.001, self.quantile + sign * noise)))
