"""Judgements become pairs: a query, an item's title, and the place of its grade between the lowest and the highest."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb

from reshelve.examples.catalogue import Catalogue
from reshelve.examples.choices import TextPair
from reshelve.examples.formats import HoldoutQuery
from reshelve.examples.sampling import stable_hash
from reshelve.examples.window import stream

Grades = tuple[float, float]  # lowest, highest

# Several judgements of one pair are one, of their mean grade. A query's judgements stay together, the newest first.
_JUDGED = """
WITH judged AS (
    SELECT norm, item_id, first(trim(query) ORDER BY day DESC, line DESC) AS query, avg(grade) AS grade,
           max(day) AS last FROM events WHERE part = $part AND norm <> '' GROUP BY norm, item_id
),
kept AS (SELECT * FROM judged ORDER BY last DESC, md5(norm), item_id LIMIT $limit)
SELECT norm, item_id, query, grade FROM kept ORDER BY norm, item_id
"""

_QUERIES = """
WITH drawn AS (
    SELECT DISTINCT norm FROM events WHERE part = 'holdout' AND norm <> ''
    ORDER BY md5(concat_ws('/', $seed, norm)), norm LIMIT $limit
)
SELECT norm, first(trim(query) ORDER BY day DESC, line DESC), item_id, avg(grade)
FROM events SEMI JOIN drawn USING (norm) WHERE part = 'holdout' GROUP BY norm, item_id ORDER BY norm, item_id
"""


def pairs(
    connection: duckdb.DuckDBPyConnection, catalogue: Catalogue, part: str, limit: int, grades: Grades
) -> Iterator[TextPair]:
    """At most `limit` pairs of `part`. Groups, one for each query, are numbered from 0."""
    group, previous = -1, ""
    for norm, item, query, grade in stream(connection, _JUDGED, {"part": part, "limit": limit}):
        if norm != previous:
            group, previous = group + 1, norm
        place = catalogue.index.get(item)
        if place is not None:
            yield TextPair(
                query, catalogue.titles[place], _above(grade, grades) / _span(grades), 1.0, group, item
            )


def held_out(
    connection: duckdb.DuckDBPyConnection, catalogue: Catalogue, limit: int, seed: int, grades: Grades
) -> Iterator[HoldoutQuery]:
    """At most `limit` queries with all that was judged under them. What has more than the lowest grade is relevant."""
    found: dict[str, tuple[str, dict[str, float]]] = {}
    for norm, query, item, grade in stream(connection, _QUERIES, {"seed": seed, "limit": limit}):
        if item in catalogue.index:
            found.setdefault(norm, (query, {}))[1][item] = _above(grade, grades)
    for norm, (query, gains) in found.items():
        relevant = {item: gain for item, gain in gains.items() if gain > 0}
        number = f"{stable_hash(norm):016x}"
        yield HoldoutQuery(
            query_id=number, text=query, relevant=list(relevant), gains=list(relevant.values()),
            candidates=list(gains), weight=1.0, cluster=number,
        )  # fmt: skip


def _above(grade: float, grades: Grades) -> float:
    """Above the lowest; a grade outside the scale counts as its end."""
    return min(max(grade - grades[0], 0.0), _span(grades))


def _span(grades: Grades) -> float:
    return grades[1] - grades[0]
