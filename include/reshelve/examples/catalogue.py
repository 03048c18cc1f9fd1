"""The candidates: items that sold (or were clicked) lately, as known when the holdout begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq

from reshelve.errors import DataError
from reshelve.examples.formats import CATALOGUE, write_rows

_NAMES = 20  # titles of one item that are kept: beyond it says something else each time

# The holdout is left out of every count and title. `events_train` also leaves validation out: a bias or a prior
# that training starts from must not know the days it is validated on.
_SQL = """
WITH past AS (SELECT * FROM events WHERE part <> 'holdout'),
counts AS (
    SELECT item_id, count(*) AS events, count(*) FILTER (part = 'train') AS events_train
    FROM past WHERE day >= $since GROUP BY item_id
),
named AS (SELECT item_id, own_title, count(*) AS times, max(event_time) AS last FROM past
          WHERE own_title IS NOT NULL GROUP BY ALL),
ranked AS (SELECT *, row_number() OVER (PARTITION BY item_id ORDER BY times DESC, last DESC, own_title) AS place FROM named),
titles AS (SELECT item_id, own_title FROM ranked WHERE place = 1),
names AS (SELECT item_id, list(own_title ORDER BY place) AS names FROM ranked WHERE place <= $names GROUP BY item_id),
categories AS (SELECT item_id, category FROM past WHERE category IS NOT NULL GROUP BY item_id, category
               QUALIFY row_number() OVER (PARTITION BY item_id ORDER BY count(*) DESC, max(event_time) DESC, category) = 1),
items AS (SELECT item_id FROM counts UNION SELECT item_id FROM products WHERE $listed)
SELECT item_id, coalesce(products.title, own_title, item_id) AS title, coalesce(events, 0), coalesce(events_train, 0), category,
    list_filter(coalesce(names, []), lambda name: name <> title)
FROM items LEFT JOIN counts USING (item_id) LEFT JOIN titles USING (item_id) LEFT JOIN products USING (item_id)
    LEFT JOIN categories USING (item_id) LEFT JOIN names USING (item_id)
ORDER BY CASE WHEN $by_demand THEN coalesce(events, 0) ELSE 0 END DESC, 1
"""


@dataclass(frozen=True)
class Catalogue:
    """Candidate items, most events first (with `remember.privacy` by item id); the position is the `index` of the file and of the softmax."""

    items: Sequence[str]
    titles: Sequence[str]
    events: Sequence[int]
    events_train: Sequence[int]
    categories: Sequence[str | None] = ()  # of every item, or of none
    names: Sequence[Sequence[str]] = ()  # other titles that its events had; of every item, or of none

    @cached_property
    def index(self) -> dict[str, int]:
        """Item id → position."""
        return {item: position for position, item in enumerate(self.items)}

    @cached_property
    def category(self) -> dict[str, str]:
        """Item id → category, where it is known."""
        return {item: found for item, found in zip(self.items, self.categories, strict=False) if found}

    @cached_property
    def places(self) -> np.ndarray:
        """int64[C]: where each item stands by item id, the order that breaks ties without favour."""
        places = np.empty(len(self.items), dtype=np.int64)
        places[np.argsort(np.array(self.items, dtype=object), kind="stable")] = np.arange(len(self.items))
        return places

    def __len__(self) -> int:
        return len(self.items)

    def write(self, path: Path) -> None:
        """Write `catalogue.parquet`."""
        categories = self.categories or [None] * len(self)
        names = self.names or [[]] * len(self)
        rows = zip(self.items, self.titles, self.events, self.events_train, categories, names, strict=True)
        write_rows(
            path,
            CATALOGUE,
            (dict(zip(CATALOGUE.names, (index, *row), strict=True)) for index, row in enumerate(rows)),
        )

    @classmethod
    def read(cls, path: Path) -> Catalogue:
        """Read `catalogue.parquet`."""
        table = pq.read_table(path).sort_by("index")
        columns = ("item_id", "title", "events", "events_train", "category", "names")
        return cls(*(table[name].to_pylist() for name in columns))


def build_catalogue(
    connection: duckdb.DuckDBPyConnection,
    holdout_begins: date,
    days: int,
    listed: bool,
    by_demand: bool = True,
) -> Catalogue:
    """Items with a label event in the last `days` before the holdout, and with `listed` the shop's product list.

    `by_demand`: most events first; else the order says nothing of events. Raises DataError where there is none.
    """
    since = holdout_begins - timedelta(days=days)
    rows = connection.execute(
        _SQL, {"since": since, "listed": listed, "names": _NAMES, "by_demand": by_demand}
    ).fetchall()
    if not rows:
        raise DataError(
            f"no item had an event between {since} and {holdout_begins}",
            "expected label events (data.events) in the catalogue days before the holdout",
        )
    return Catalogue(*zip(*rows, strict=True))
