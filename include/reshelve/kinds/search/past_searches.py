"""What was searched before the held-out days, and what a search ranker may remember of it.

Searches are counted in DuckDB: what memory holds grows with the texts that were asked, not with their number.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from reshelve.clickstream.database import connect, text
from reshelve.clickstream.remember import CUSTOMER_SQL
from reshelve.config.ranker import Ranker
from reshelve.examples.catalogue import Catalogue
from reshelve.features.noisy_searches import NoisyChoice, NoisyCorpus, plain, unit_of
from reshelve.features.tables import Array, AskedTexts, Corpus, Searches, SearchTables
from reshelve.lineage.run import Run

_BLANKS = "".join(filter(str.isspace, map(chr, range(sys.maxunicode + 1))))  # what str.strip takes away
_ORDINAL = f"CAST(day - DATE {text(date.min)} + 1 AS INTEGER) AS day"

_SEARCHED = f"""
CREATE VIEW searched AS
SELECT trim(query, {text(_BLANKS)}) AS text, item, CAST(event_time AS DATE) AS day, weight, {CUSTOMER_SQL} AS customer
FROM events JOIN labels USING (event_type) JOIN items USING (item_id) WHERE text <> '';
CREATE TABLE texts AS
SELECT text, CAST(row_number() OVER (ORDER BY text) - 1 AS INTEGER) AS number FROM (SELECT DISTINCT text FROM searched)
"""
_CHOSEN = f"""
SELECT number, item, {_ORDINAL}, CAST(sum(weight) AS DOUBLE) AS weight
FROM searched JOIN texts USING (text) GROUP BY number, item, searched.day ORDER BY ALL
"""
# Of each text the first customers and the first days: no more of them can move the day on which there were enough.
_ASKED = f"""
WITH first_asked AS (SELECT text, customer, min(day) AS day FROM searched GROUP BY text, customer),
customers AS (FROM first_asked QUALIFY row_number() OVER (PARTITION BY text ORDER BY day, customer) <= {{customers}}),
every_day AS (SELECT text, min(customer) AS customer, day FROM searched GROUP BY text, day),
days AS (FROM every_day QUALIFY row_number() OVER (PARTITION BY text ORDER BY day) <= {{days}})
SELECT number, CAST(dense_rank() OVER (ORDER BY customer) - 1 AS INTEGER) AS customer, {_ORDINAL}
FROM (FROM customers UNION FROM days) JOIN texts USING (text) ORDER BY ALL
"""


@dataclass(frozen=True)
class SearchMemory:
    """The tables of any morning. `about`: what the stage's result says of how they were made."""

    tables: Callable[[date], SearchTables]
    about: dict[str, Any]

    @classmethod
    def of(cls, corpus: Corpus, examples: Path, catalogue: Catalogue, run: Run) -> SearchMemory:
        """Of the corpus itself; with `remember.privacy` of counts that are released with noise.

        Raises ConfigurationError where noise is asked for and OpenDP is not installed.
        """
        rule, labels = run.ranker.remember, run.ranker.data.label_weights
        if not rule.privacy.on:
            return cls(corpus.tables, {"queries_asked": len(corpus.keys)})
        heaviest = max(labels.values())
        choices = _choices(examples, run, heaviest)
        noisy = NoisyCorpus(choices, catalogue.index, titles_of(catalogue), rule, heaviest)
        return cls(noisy.tables, {"privacy": noisy.spent})


def read_corpus(examples: Path, catalogue: Catalogue, run: Run, spill: Path) -> Corpus:
    """All searches of `events.parquet`, which knows nothing of the holdout, and the catalogue's titles."""
    searches = read_searches(examples / "events.parquet", catalogue, run.ranker, spill)
    return Corpus(searches, titles_of(catalogue), run.ranker.remember)


def titles_of(catalogue: Catalogue) -> list[str]:
    """An untitled item is called by its id, which says nothing of it."""
    return [
        "" if title == item else title for item, title in zip(catalogue.items, catalogue.titles, strict=True)
    ]


def read_searches(events: Path, catalogue: Catalogue, ranker: Ranker, spill: Path) -> Searches:
    """Label events with a query and an item of the catalogue, from `events.parquet`, which knows nothing of the holdout."""
    db = connect(spill=spill)
    try:
        db.read_parquet(str(events)).create_view("events")
        db.execute("CREATE TABLE labels (event_type VARCHAR, weight DECIMAL(18, 6))")
        db.executemany("INSERT INTO labels VALUES (?, ?)", sorted(ranker.data.label_weights.items()))
        places = pa.array(range(len(catalogue)), pa.int32())
        db.register(
            "catalogue", pa.table({"item_id": pa.array(catalogue.items, pa.string()), "item": places})
        )
        db.execute("CREATE TABLE items AS FROM catalogue")
        db.execute(_SEARCHED)
        number, item, day, weight = _columns(db, _CHOSEN)
        rule = ranker.remember
        asked = AskedTexts(*_columns(db, _ASKED.format(customers=rule.customers, days=rule.days)))
        texts = db.sql("SELECT text FROM texts ORDER BY number").to_arrow_table()["text"].to_pylist()
    finally:
        db.close()
    return Searches(texts, number, item, day, weight, asked)


def _columns(db: duckdb.DuckDBPyConnection, sql: str) -> list[Array]:
    return [np.asarray(column) for column in db.sql(sql).to_arrow_table().columns]


def _choices(examples: Path, run: Run, heaviest: float) -> list[NoisyChoice]:
    """Those of every item, as they are counted with noise: one for each row, as who gave which counts."""
    columns = ["event_time", "event_type", "query", "item_id", "user_id", "session_id"]
    table = pq.read_table(examples / "events.parquet", columns=columns).select(columns)
    labels = run.ranker.data.label_weights
    found = [
        (unit_of(user, session), query.strip(), item, time.date(), labels[kind] / heaviest)
        for time, kind, query, item, user, session in zip(*table.to_pydict().values(), strict=True)
        if query and query.strip() and kind in labels
    ]
    words = plain([query for _, query, *_ in found])
    return [NoisyChoice(who, words[query], *others) for who, query, *others in found]
