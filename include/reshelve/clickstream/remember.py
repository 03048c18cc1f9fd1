"""What may be remembered of what customers ask: only what several of them have asked, on several days.

What a version, a report or a recorded request holds is seen by people and machines that a query was never meant for. A name
with its address, a booking number, a question that nobody else has: each is asked by one person. `remembered_from` alone
decides; tables, n-grams, rates, popularity by query, warm-up requests, known answers and reports all ask it.

A customer is who the user id says; where there is none, the visit (`session_id`); where there is neither, the whole day
counts as one, as everybody in it may be the same person. So a source without ids remembers what is asked on
`remember.customers` days. One person with several ids counts as several: who logs in on one visit only, or whose pseudonym
changes with its key.
"""

from __future__ import annotations

from datetime import date

import duckdb
import numpy as np

from reshelve.clickstream.database import column
from reshelve.config.remember import Remember

Array = np.ndarray

NEVER = date.max.toordinal()
EVERYTHING = Remember(customers=1, days=1)
"""Whatever was asked once: for comparisons, and for texts that are no customer's."""

CUSTOMER_SQL = "coalesce(user_id, session_id, CAST(CAST(event_time AS DATE) AS VARCHAR))"


def remembered_from(things: Array, customers: Array, days: Array, rule: Remember, count: int) -> Array:
    """int64 [count]: for each thing the day (ordinal) on which enough customers had asked it on enough days; NEVER if never.

    things, customers, days: int [N], one event each; things are 0 to count - 1. It may be remembered on the mornings after.
    """
    return np.maximum(
        _reached(things, customers, days, rule.customers, count),
        _reached(things, days, days, rule.days, count),
    )


def remembered_sql(asked: str, rule: Remember) -> str:
    """`remembered_from` as a query, for any number of events: (name, remembered_on) of names that are ever remembered.

    `asked`: a query that gives name, customer and day, one row an event.
    """

    def reached(key: str, least: int) -> str:
        """The day on which each name had `least` distinct keys."""
        firsts = f"SELECT name, {key}, min(day) AS first FROM ({asked}) GROUP BY name, {key}"
        return (
            f"(SELECT name, first FROM ({firsts})"
            f" QUALIFY row_number() OVER (PARTITION BY name ORDER BY first) = {least})"
        )

    return (
        "SELECT name, greatest(by_customers.first, by_days.first) AS remembered_on"
        f" FROM {reached('customer', rule.customers)} AS by_customers"
        f" JOIN {reached('day', rule.days)} AS by_days USING (name)"
    )


def remembered_in(db: duckdb.DuckDBPyConnection, table: str, name: str, rule: Remember) -> list[str]:
    """Values of a column of `table` that may be remembered after all its events.

    The table has event_time, and the columns of CUSTOMER_SQL or `customer` in their place.
    """
    columns = {row[0] for row in db.execute(f"DESCRIBE {table}").fetchall()}
    who = "customer" if "customer" in columns else CUSTOMER_SQL
    asked = (
        f"SELECT {column(name)} AS name, {who} AS customer, CAST(event_time AS DATE) AS day"
        f" FROM {table} WHERE {column(name)} <> ''"
    )
    return [
        found
        for (found,) in db.execute(f"SELECT name FROM ({remembered_sql(asked, rule)}) ORDER BY 1").fetchall()
    ]


def _reached(things: Array, keys: Array, days: Array, least: int, count: int) -> Array:
    """The day on which each thing had `least` distinct keys."""
    order = np.lexsort((days, keys, things))
    things, keys, days = things[order], keys[order], days[order]
    first = np.ones(len(things), bool)
    first[1:] = (things[1:] != things[:-1]) | (keys[1:] != keys[:-1])
    things, days = things[first], days[first]
    order = np.lexsort((days, things))
    things, days = things[order], days[order]
    begin, end = np.searchsorted(things, [np.arange(count), np.arange(count) + 1])
    found = np.full(count, NEVER, np.int64)
    enough = end - begin >= least
    found[enough] = days[begin[enough] + least - 1]
    return found
