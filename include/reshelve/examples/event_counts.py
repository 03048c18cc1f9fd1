"""What was known when the holdout began: counts over `events.parquet`, which holds nothing newer.

Shortlists and baselines count here and nowhere else, so that no holdout event can reach them.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from scipy import sparse

from reshelve.clickstream.database import connect
from reshelve.clickstream.remember import CUSTOMER_SQL, remembered_in
from reshelve.config.remember import Remember
from reshelve.examples.catalogue import Catalogue
from reshelve.examples.queries import normalised_sql

POPULAR_DAYS = 7
QUERIES_KEPT = 100_000


class EventCounts:
    """Weighted counts of label events before `now`, the first instant of the holdout; by query where `rule` lets it."""

    def __init__(
        self,
        events: Path,
        catalogue: Catalogue,
        labels: dict[str, float],
        now: date,
        spill: Path,
        rule: Remember,
    ) -> None:
        self.catalogue = catalogue
        self._rule = rule
        self._now = datetime.combine(now, time())
        self._connection = connect(spill=spill)
        self._connection.read_parquet(str(events)).create_view("raw")
        self._connection.execute("CREATE TABLE labels (event_type VARCHAR, weight DECIMAL(18, 6))")
        self._connection.executemany("INSERT INTO labels VALUES (?, ?)", sorted(labels.items()))
        # The second condition is true of every row that the examples stage wrote; it stays as a lock on the door.
        self._connection.execute(
            f"""CREATE TABLE past AS
               SELECT event_time, coalesce(session_id, user_id) AS basket, item_id, weight,
                      {CUSTOMER_SQL} AS customer, {normalised_sql("query")} AS norm
               FROM raw JOIN labels USING (event_type) WHERE event_time < ?""",
            [self._now],
        )

    def popularity(self, days: int = POPULAR_DAYS) -> np.ndarray:
        """float64[C]: weight of each catalogue item's events in the last `days`."""
        rows = self._connection.execute(
            "SELECT item_id, CAST(sum(weight) AS DOUBLE) FROM past WHERE event_time >= ? GROUP BY 1",
            [self._now - timedelta(days=days)],
        ).fetchall()
        return self._vector(rows)

    def searches(self, limit: int = QUERIES_KEPT) -> dict[str, list[tuple[int, float]]]:
        """For the `limit` most frequent queries (normalised) that may be remembered: catalogue index and weight of what was chosen."""
        self._connection.execute("CREATE OR REPLACE TEMP TABLE remembered (norm VARCHAR)")
        names = remembered_in(self._connection, "past", "norm", self._rule)
        self._connection.execute("INSERT INTO remembered SELECT unnest(?)", [names])
        rows = self._connection.execute(
            """WITH frequent AS (SELECT norm FROM past SEMI JOIN remembered USING (norm) GROUP BY 1 ORDER BY sum(weight) DESC, norm LIMIT ?)
               SELECT norm, item_id, CAST(sum(weight) AS DOUBLE) FROM past SEMI JOIN frequent USING (norm)
               GROUP BY norm, item_id ORDER BY norm, item_id""",
            [limit],
        )
        found: dict[str, list[tuple[int, float]]] = {}
        while batch := rows.fetchmany(10_000):
            for norm, item, weight in batch:
                position = self.catalogue.index.get(item)
                if position is not None:
                    found.setdefault(norm, []).append((position, weight))
        return found

    def more_frequent(
        self, column: Literal["norm", "item_id"], names: Collection[str] | None = None
    ) -> dict[str, float]:
        """For each query (normalised) or item, of `names` where given: the share of all weight on more frequent ones.

        In [0, 1): 0 for the most frequent. What was never seen is not in it.
        """
        wanted = "" if names is None else "WHERE name IN (SELECT unnest(?))"
        rows = self._connection.execute(
            f"""WITH counts AS (SELECT {column} AS name, sum(weight) AS total FROM past
                                WHERE {column} <> '' GROUP BY 1),
                shares AS (SELECT name, CAST(sum(total) OVER (ORDER BY total DESC, name) - total AS DOUBLE)
                                        / CAST(sum(total) OVER () AS DOUBLE) AS before FROM counts)
                SELECT name, before FROM shares {wanted}""",
            [] if names is None else [sorted(names)],
        ).fetchall()
        return dict(rows)

    def known_before(self, days: int) -> frozenset[str]:
        """Items with an event older than `days` before the holdout, whether or not they are still in the catalogue."""
        rows = self._connection.execute(
            "SELECT DISTINCT item_id FROM past WHERE event_time < ?", [self._now - timedelta(days=days)]
        ).fetchall()
        return frozenset(item for (item,) in rows)

    def baskets(self) -> sparse.csr_matrix:
        """1 where a basket holds an item: int8 [baskets, C]."""
        self._connection.execute("CREATE OR REPLACE TEMP TABLE positions (item_id VARCHAR, position INTEGER)")
        places = pa.array(range(len(self.catalogue)), pa.int32())
        items = pa.table({"item_id": pa.array(self.catalogue.items, pa.string()), "position": places})
        self._connection.register("catalogue", items)
        self._connection.execute("INSERT INTO positions FROM catalogue")
        self._connection.unregister("catalogue")
        held = self._connection.sql(
            """SELECT CAST(dense_rank() OVER (ORDER BY basket, day) - 1 AS INTEGER) AS number, position FROM (
                   SELECT DISTINCT basket, CAST(event_time AS DATE) AS day, position FROM past JOIN positions USING (item_id)
                   WHERE basket IS NOT NULL) ORDER BY number, position"""
        ).to_arrow_table()
        numbers, found = held["number"].to_numpy(), held["position"].to_numpy()
        starts = np.searchsorted(numbers, np.arange(numbers[-1] + 2 if len(numbers) else 1))
        shape = (len(starts) - 1, len(self.catalogue))
        return sparse.csr_matrix((np.ones(len(found), np.int8), found, starts), shape)

    def _vector(self, rows: list[tuple[str, float]]) -> np.ndarray:
        vector = np.zeros(len(self.catalogue))
        for item, weight in rows:
            position = self.catalogue.index.get(item)
            if position is not None:
                vector[position] = weight
        return vector
