"""Impressions become pairs: what was shown for a query, 1 where it was chosen soon after and 0 where it was not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any

import duckdb

from reshelve.clickstream.remember import CUSTOMER_SQL
from reshelve.examples.catalogue import Catalogue
from reshelve.examples.choices import TextPair
from reshelve.examples.formats import HoldoutQuery
from reshelve.examples.queries import normalised_sql
from reshelve.examples.sampling import stable_hash
from reshelve.examples.window import stream

# What was shown together: the impressions of one visit, query and instant. A choice belongs to the last impression of its
# item in its visit; later than the attribution window it belongs to none. `chosen_on` is the choice's own partition: on
# the morning after an impression, a choice that is still to come is not known.
_IMPRESSIONS = """
CREATE TABLE impressions AS
WITH shown AS (
    SELECT coalesce({norm}, '') AS norm,
           day, {part} AS part, line, event_time, session_id, trim(query) AS query, item_id, position,
           {customer} AS customer,
           nullif(trim(segment), '') AS segment
    FROM (SELECT *, CAST(left(parse_filename(filename), 10) AS DATE) AS day, file_row_number AS line FROM files)
    JOIN split USING (day) WHERE event_type = 'impression' AND item_id IS NOT NULL
),
chosen AS (
    SELECT events.session_id, events.item_id, events.weight, events.day AS chosen_on,
           max(shown.event_time) AS event_time
    FROM events JOIN shown ON shown.session_id = events.session_id AND shown.item_id = events.item_id
        AND shown.event_time <= events.event_time
        AND events.event_time <= shown.event_time + to_seconds(CAST(? AS BIGINT))
    GROUP BY events.session_id, events.item_id, events.weight, events.day, events.event_time
),
best AS (
    SELECT session_id, item_id, event_time, max(weight) AS weight, min(chosen_on) AS chosen_on
    FROM chosen GROUP BY session_id, item_id, event_time
)
SELECT shown.*, coalesce(best.weight, 0) AS chosen, chosen_on FROM shown LEFT JOIN best USING (session_id, item_id, event_time)
"""
_SHOWN = """
WITH kept AS (SELECT * FROM impressions WHERE part = $part ORDER BY event_time DESC, day DESC, line DESC LIMIT $limit)
SELECT day, event_time, session_id, norm, query, item_id, position, chosen FROM kept
ORDER BY event_time, session_id, norm, position, line
"""
_HELD_OUT = """
WITH lists AS (
    SELECT DISTINCT event_time, session_id, norm FROM impressions WHERE part = 'holdout'
    ORDER BY md5(concat_ws('/', $seed, session_id, event_time, norm)) LIMIT $limit
)
SELECT event_time, session_id, norm, query, segment, item_id, chosen FROM impressions
SEMI JOIN lists USING (event_time, session_id, norm) WHERE part = 'holdout'
ORDER BY event_time, session_id, norm, position, line
"""


# What was shown before the holdout is a candidate, whether or not anybody chose it.
_LISTED = """
INSERT INTO products
SELECT item_id, max(nullif(trim(item_title), '')) FROM files
WHERE event_type = 'impression' AND item_id IS NOT NULL AND CAST(left(parse_filename(filename), 10) AS DATE) < ?
GROUP BY item_id HAVING item_id NOT IN (SELECT item_id FROM products)
"""


def list_shown(connection: duckdb.DuckDBPyConnection, begins: date) -> None:
    """Add what was shown before the day `begins` to the table `products`."""
    connection.execute(_LISTED, [begins])


def open_impressions(connection: duckdb.DuckDBPyConnection, part: str, minutes: float) -> None:
    """The table `impressions` over the window's files: weight of the choice that each led to within `minutes`, or 0."""
    connection.execute(
        _IMPRESSIONS.format(part=part, norm=normalised_sql("query"), customer=CUSTOMER_SQL),
        [int(minutes * 60)],
    )


def pairs(
    connection: duckdb.DuckDBPyConnection, catalogue: Catalogue, part: str, limit: int
) -> Iterator[TextPair]:
    """The newest `limit` impressions of `part`. Groups, what was shown together, are numbered from 0."""
    group, previous = -1, None
    for day, *key, query, item, position, chosen in stream(
        connection, _SHOWN, {"part": part, "limit": limit}
    ):
        if key != previous:
            group, previous = group + 1, key
        place = catalogue.index.get(item)
        if place is not None:
            weight = chosen or 1.0  # as much as its event says; an impression that led to nothing counts once
            yield TextPair(
                query or "", catalogue.titles[place], float(chosen > 0), weight, group, item, day, position
            )


def held_out(
    connection: duckdb.DuckDBPyConnection, catalogue: Catalogue, limit: int, seed: int
) -> Iterator[HoldoutQuery]:
    """At most `limit` lists that were shown, with what was chosen of each: nothing, of most."""
    shown: list[tuple[str, float]] = []
    previous: tuple[Any, ...] | None = None
    for *key, query, segment, item, chosen in stream(connection, _HELD_OUT, {"seed": seed, "limit": limit}):
        if previous is not None and tuple(key) != previous[:3]:
            if shown:  # else the catalogue knows nothing of what was shown
                yield _question(previous, shown)
            shown = []
        previous = (*key, query, segment)
        if item in catalogue.index:
            shown.append((item, chosen))
    if previous is not None and shown:
        yield _question(previous, shown)


def _question(of: tuple[Any, ...], shown: list[tuple[str, float]]) -> HoldoutQuery:
    event_time, session, norm, query, segment = of
    candidates = list(dict.fromkeys(item for item, _ in shown))
    chosen = dict.fromkeys(item for item, weight in shown if weight > 0)
    return HoldoutQuery(
        query_id=f"{stable_hash(event_time, session, norm):016x}", text=query or "", relevant=list(chosen),
        candidates=candidates, weight=1.0, cluster=f"{stable_hash(session):016x}", segment=segment,
    )  # fmt: skip
