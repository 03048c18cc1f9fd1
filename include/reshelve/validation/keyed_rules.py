"""The rules that a row breaks by the company it keeps: repetitions, bots, clicks on what was never shown."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from reshelve.clickstream.database import column, text
from reshelve.validation.rule_base import EventColumn, EventTypeName, KeyedRule


def _listed(columns: tuple[str, ...]) -> str:
    return ", ".join(map(column, columns))


def _later(columns: tuple[str, ...], where: str) -> str:
    """The rows that repeat an earlier one.

    The hash finds the few candidates, so that memory holds eight bytes a row; what is put in order is
    compared by its values, so that two texts with one hash are no repetition.
    """
    names = _listed(columns)
    hashed = f"SELECT _row, {names}, hash({names}) AS _hash FROM events WHERE {where}"
    candidates = f"SELECT _hash FROM ({hashed}) AS every GROUP BY _hash HAVING count(*) > 1"
    return (
        f"SELECT _row FROM (SELECT _row, row_number() OVER (PARTITION BY {names} ORDER BY _row) AS _place"
        f" FROM ({hashed}) AS rows_ JOIN ({candidates}) AS often USING (_hash)) AS placed WHERE _place > 1"
    )


class Unique(KeyedRule):
    """No earlier row of the partition has the same value: the first is kept, its repetitions break the rule."""

    check: Literal["unique"]
    column: EventColumn

    @property
    def keys(self) -> tuple[str, ...]:
        return ("_row",)

    def offenders(self, partition: str) -> str:
        return _later((self.column,), f"{column(self.column)} IS NOT NULL")

    def failure(self) -> str:
        return f"{self.column} occurred before"


class Repeated(KeyedRule):
    """No earlier row is the same in all these columns (NULL is a value): the same event under another id."""

    check: Literal["repeated"]
    columns: tuple[EventColumn, ...] = Field(min_length=2)
    event_types: tuple[EventTypeName, ...] = Field(
        ("click", "cart", "purchase", "return"), min_length=1, description="The events that are compared."
    )

    @property
    def keys(self) -> tuple[str, ...]:
        return ("_row",)

    def offenders(self, partition: str) -> str:
        return _later(self.columns, f'"event_type" IN ({", ".join(map(text, self.event_types))})')

    def failure(self) -> str:
        return f"the same as an earlier event in {', '.join(self.columns)}"


class ClickWithoutImpression(KeyedRule):
    """A click is on an item that was shown in its session. Asked where the partition has impressions."""

    check: Literal["click_without_impression"]

    @property
    def keys(self) -> tuple[str, ...]:
        return ("session_id", "item_id")

    @property
    def only(self) -> str:
        return "\"event_type\" = 'click'"

    def offenders(self, partition: str) -> str:
        return (
            "SELECT DISTINCT session_id, item_id FROM events WHERE event_type = 'click' AND session_id IS NOT NULL"
            " AND item_id IS NOT NULL EXCEPT"
            " SELECT session_id, item_id FROM events WHERE event_type = 'impression'"
        )

    def failure(self) -> str:
        return "a click on an item that its session was not shown"


class FastClicks(KeyedRule):
    """No session (or user) clicks faster than a person can: at most `max` events in any `seconds`.

    Time is cut into pieces of `seconds` from midnight. All events of one that is too fast break the rule.
    """

    check: Literal["fast_clicks"]
    per: Literal["session_id", "user_id"]
    max: int = Field(ge=1, description="Maximum number of events in one interval.")
    seconds: int = Field(ge=1, le=86_400, description="The length of an interval.")
    event_type: EventTypeName = "click"

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.per,)

    def offenders(self, partition: str) -> str:
        key = column(self.per)
        return (
            f"SELECT DISTINCT {key} FROM (SELECT {key}, count(*) AS clicks FROM events"
            f" WHERE event_type = {text(self.event_type)} AND {key} IS NOT NULL AND event_time IS NOT NULL"
            f" GROUP BY {key}, CAST(floor(epoch(event_time) / {self.seconds}) AS BIGINT)) AS pieces WHERE clicks > {self.max}"
        )

    def failure(self) -> str:
        who = self.per.removesuffix("_id")
        return f"of a {who} with more than {self.max:,} {self.event_type}s in {self.seconds:,} seconds"


class ManyEvents(KeyedRule):
    """No session (or user) has more events of a type on one day than a person makes."""

    check: Literal["many_events"]
    per: Literal["session_id", "user_id"]
    max: int = Field(ge=1, description="Maximum number of events in one day.")
    event_type: EventTypeName = "click"

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.per,)

    def offenders(self, partition: str) -> str:
        key = column(self.per)
        return (
            f"SELECT {key} FROM events WHERE event_type = {text(self.event_type)} AND {key} IS NOT NULL"
            f" GROUP BY {key} HAVING count(*) > {self.max}"
        )

    def failure(self) -> str:
        return f"of a {self.per.removesuffix('_id')} with more than {self.max:,} {self.event_type}s in a day"


class ExplodingQuery(KeyedRule):
    """No query is so large a share of the searches. Each session counts once, so that one visitor cannot."""

    check: Literal["exploding_query"]
    max_share: float = Field(gt=0, lt=1, description="The largest share of the sessions that search.")
    least: int = Field(100, ge=1, description="Sessions with that query, below which its share says nothing.")

    @property
    def keys(self) -> tuple[str, ...]:
        return ("query",)

    def offenders(self, partition: str) -> str:
        return (
            "WITH asked AS (SELECT DISTINCT session_id, query FROM events WHERE query IS NOT NULL AND session_id IS NOT NULL)"
            f" SELECT query FROM asked GROUP BY query HAVING count(*) >= {self.least}"
            f" AND count(*) > {self.max_share!r} * (SELECT count(DISTINCT session_id) FROM asked)"
        )

    def failure(self) -> str:
        return f"the query is asked in more than {self.max_share:.1%} of the sessions that search"


class InCatalogue(KeyedRule):
    """The item is in the product list. Asked where the source has landed one."""

    check: Literal["in_catalogue"]

    @property
    def keys(self) -> tuple[str, ...]:
        return ("item_id",)

    def offenders(self, partition: str) -> str:
        return "SELECT DISTINCT item_id FROM events WHERE item_id IS NOT NULL EXCEPT SELECT item_id FROM products"

    def failure(self) -> str:
        return "the item is not in the catalogue"


class Titled(KeyedRule):
    """The item has a title: the event's own, or that of the product list where the source has landed one."""

    check: Literal["titled"]

    @property
    def keys(self) -> tuple[str, ...]:
        return ("item_id",)

    @property
    def only(self) -> str:
        return '"item_title" IS NULL'

    def offenders(self, partition: str) -> str:
        return (
            "SELECT DISTINCT item_id FROM events WHERE item_title IS NULL AND item_id IS NOT NULL"
            " EXCEPT SELECT item_id FROM products WHERE title IS NOT NULL"
        )

    def failure(self) -> str:
        return "the item has a title neither in its event nor in the product list"
