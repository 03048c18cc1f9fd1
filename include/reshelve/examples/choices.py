"""Searches become pairs: a query with what was chosen (1) and with what was drawn against it (0).

What was shown beside a choice is unknown, so the others are sampled, and are called that: never impressions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date

import duckdb
import numpy as np

from reshelve.config.ranker import ExampleRules
from reshelve.examples.catalogue import Catalogue
from reshelve.examples.formats import HoldoutQuery
from reshelve.examples.sampling import stable_hash
from reshelve.examples.titles import TextIndex
from reshelve.examples.window import stream

_POSITIVES = """
WITH searches AS (SELECT * FROM events WHERE norm <> ''),
pairs AS (
    SELECT norm, item_id, first(query ORDER BY event_time DESC, day DESC, line DESC) AS query,
           CAST(sum(CAST(weight AS DECIMAL(18, 6))) AS DOUBLE) AS total, max(event_time) AS last
    FROM searches WHERE part = $part GROUP BY norm, item_id
),
kept AS (SELECT * FROM pairs ORDER BY last DESC, norm, item_id LIMIT $limit),
chosen AS (
    SELECT norm, list(DISTINCT item_id ORDER BY item_id) AS items
    FROM searches SEMI JOIN kept USING (norm) WHERE part IN ('train', $part) GROUP BY norm
)
SELECT norm, item_id, trim(query), total, items FROM kept JOIN chosen USING (norm) ORDER BY norm, item_id
"""

# A sample of events, then one row for equal ones of one segment: heavier queries are drawn, and weigh, as often as customers ask them.
_HELD_OUT = """
WITH drawn AS (
    SELECT * FROM events WHERE part = 'holdout' AND norm <> ''
    ORDER BY md5(concat_ws('/', $seed, day, line)), day, line LIMIT $limit
)
SELECT norm, item_id, first(trim(query) ORDER BY event_time, day, line),
       CAST(sum(CAST(weight AS DECIMAL(18, 6))) AS DOUBLE), segment
FROM drawn GROUP BY norm, item_id, segment ORDER BY norm, item_id, segment
"""


@dataclass(frozen=True)
class TextPair:
    """One row of train.parquet or validation.parquet, before it is tokenised."""

    query: str
    title: str
    label: float
    weight: float
    group: int
    item: str
    day: date | None = None  # of an impression, with its position where it is known
    position: int | None = None


class PairSampler:
    """Draws what each chosen item is compared with.

    From items that training days know or the product list names, by counts of training days alone, in an order of
    their own: what happens on a validation day moves no negative of a training example.
    """

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, catalogue: Catalogue, examples: ExampleRules, seed: int
    ) -> None:
        self._connection = connection
        self._catalogue = catalogue
        self._examples = examples
        self._seed = seed
        listed = {item for (item,) in connection.execute("SELECT item_id FROM products").fetchall()}
        self._pool = [
            catalogue.index[item]
            for item in sorted(catalogue.items)
            if item in listed or catalogue.events_train[catalogue.index[item]] > 0
        ]
        self._titles = TextIndex([catalogue.titles[position] for position in self._pool])
        counts = np.array([catalogue.events_train[position] for position in self._pool], dtype=np.float64)
        # The power flattens popularity; the 1 lets what never sold be drawn.
        self._cumulative = np.cumsum((counts + 1) ** 0.75)

    def pairs(self, part: str, limit: int) -> Iterator[TextPair]:
        """About `limit` rows of `part`, the newest choices, with their negatives. Groups are numbered from 0."""
        per_choice = 1 + self._examples.sampled_negatives + self._examples.hard_negatives
        group, previous = -1, ""
        parameters = {"part": part, "limit": max(1, limit // per_choice)}
        taken: set[int] = set()
        for norm, item, query, total, chosen in stream(self._connection, _POSITIVES, parameters):
            position = self._catalogue.index.get(item)
            if norm != previous:
                group, previous = group + 1, norm
                taken = {self._catalogue.index[other] for other in chosen if other in self._catalogue.index}
            if position is None:
                continue  # chosen before the catalogue days, and never since
            weight = math.log2(1 + total)  # the thousandth click says less than the first
            yield TextPair(query, self._catalogue.titles[position], 1.0, weight, group, item)
            for negative in self._negatives(query, norm, item, taken):
                taken.add(negative)
                name = self._catalogue.items[negative]
                yield TextPair(query, self._catalogue.titles[negative], 0.0, weight, group, name)

    def _negatives(self, query: str, norm: str, item: str, taken: set[int]) -> list[int]:
        """Catalogue positions that are not `taken`: titles like the query first, then draws by popularity."""
        hard_wanted, wanted = self._examples.hard_negatives, self._examples.sampled_negatives
        near = self._titles.nearest(query, hard_wanted + len(taken)) if hard_wanted else []
        hard = [position for found in near if (position := self._pool[found]) not in taken][:hard_wanted]
        if not wanted or not self._pool:
            return hard
        generator = np.random.default_rng(stable_hash(self._seed, norm, item))
        # More are drawn than wanted, once: a small catalogue may hold no others, and a loop would have no end.
        draws = generator.random(4 * wanted + 4) * self._cumulative[-1]
        drawn = dict.fromkeys(
            self._pool[int(p)] for p in np.searchsorted(self._cumulative, draws, side="right")
        )
        return (
            hard + [position for position in drawn if position not in taken and position not in hard][:wanted]
        )


def held_out(
    connection: duckdb.DuckDBPyConnection, shortlist: Callable[[str], list[str]], limit: int, seed: int
) -> Iterator[HoldoutQuery]:
    """The holdout's choices, each with the `shortlist` that was possible before it."""
    candidates: list[str] = []
    previous = ""
    rows = connection.execute(_HELD_OUT, {"seed": seed, "limit": limit}).fetchall()
    for norm, item, query, weight, segment in rows:
        if norm != previous:
            candidates, previous = shortlist(query), norm
        yield HoldoutQuery(
            query_id=f"{stable_hash(norm, item, *([segment] if segment else [])):016x}",
            text=query,
            relevant=[item],
            candidates=candidates,
            weight=weight,
            cluster=f"{stable_hash(norm):016x}",
            segment=segment,
        )
