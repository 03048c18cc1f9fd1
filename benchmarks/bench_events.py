"""What reading events costs as they grow: CPU seconds and peak memory of each part, each in a process of its own.

    make bench NAME=bench_events ARGS="--rows 1000000 4000000"

Drawn events over 60 days, 50,000 items and 100,000 queries whose frequencies fall with a power, ten times as many customers
as a day has thousands of events. What is measured: rates of impressions (the counts, those of the morning after and of 14
training days), past searches with their tables, questions of baskets, and baskets as the gate's baseline counts them.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import duckdb

from reshelve.clickstream.database import connect, reader
from reshelve.clickstream.remember import EVERYTHING
from reshelve.config.ranker import Ranker
from reshelve.config.remember import Remember
from reshelve.examples.catalogue import Catalogue
from reshelve.processes import guarded

DAYS, ITEMS, QUERIES = 60, 50_000, 100_000
FIRST = date(2026, 1, 1)
BEGINS = FIRST + timedelta(days=DAYS)

_DRAWN = """
COPY (
    SELECT TIMESTAMP '2026-01-01' + to_seconds(CAST(n * 86400.0 * {days} / {rows} AS BIGINT)) AS event_time, 'click' AS event_type,
           'c' || hash(n // 8) % {customers} AS user_id, 'v' || n // 8 AS session_id,
           'query ' || CAST({queries} * (hash(n + 1) / 2.0 ** 64) ** 3 AS INTEGER) AS query,
           'item ' || CAST({items} * (hash(n + 2) / 2.0 ** 64) ** 3 AS INTEGER) AS item_id,
           CAST(event_time AS DATE) AS day, n AS line,
           CASE WHEN hash(n + 3) % 20 = 0 THEN day END AS chosen_on
    FROM range({rows}) AS given(n)
) TO '{path}' (FORMAT parquet)
"""


def draw(path: Path, rows: int) -> None:
    """The events, the same whenever they are drawn."""
    customers = max(1000, rows // 20)
    duckdb.execute(
        _DRAWN.format(days=DAYS, rows=rows, customers=customers, queries=QUERIES, items=ITEMS, path=path)
    )


def catalogue() -> Catalogue:
    """All items, under titles of three words."""
    items = tuple(f"item {number}" for number in range(ITEMS + 1))
    titles = tuple(f"red thing{number % 997} of{number % 89}" for number in range(ITEMS + 1))
    return Catalogue(items, titles, [1] * len(items), [1] * len(items))


def rates(events: Path) -> dict[str, int]:
    """As the examples stage of a pair ranker counts them."""
    from reshelve.features.impression_counts import ImpressionCounts

    db = connect(spill=events.with_suffix(".spill"))
    seen = f"SELECT query AS norm, item_id, day, chosen_on, user_id AS customer FROM {reader([events])}"
    counts = ImpressionCounts(db, seen, Remember())
    for ago in range(14):
        counts.rates(BEGINS - timedelta(days=ago), (["query 1"] * 500, [f"item {n}" for n in range(500)]))
    return {"names": len(counts.rates(BEGINS).names)}


def searches(events: Path) -> dict[str, int]:
    """As the blend stage reads them, and the tables of one morning."""
    from reshelve.features.tables import Corpus
    from reshelve.kinds.search.past_searches import read_searches

    ranker = Ranker.model_validate(
        {"name": "shop", "title": "The shop", "kind": "search", "data": {"source": "shop"}, "gates": {"metric": "map@5"}}
    )  # fmt: skip
    known = catalogue()
    found = read_searches(events, known, ranker, events.with_suffix(".spill"))
    return {
        "rows": len(found.items),
        "keys": len(Corpus(found, list(known.titles), ranker.remember).tables(BEGINS).keys),
    }


def questions(events: Path) -> dict[str, int]:
    """As the examples stage of a next_item ranker asks them."""
    from reshelve.kinds.next_item.baskets import collect_questions

    db = connect(spill=events.with_suffix(".spill"))
    last = f"DATE '{BEGINS}'"
    db.execute(
        f"""CREATE VIEW events AS SELECT *, NULL AS own_title, 1.0 AS weight, NULL AS segment,
            CASE WHEN day >= {last} - 1 THEN 'holdout' WHEN day >= {last} - 3 THEN 'validation' ELSE 'train' END AS part
            FROM {reader([events])}"""
    )
    db.execute("CREATE TABLE products (item_id VARCHAR, title VARCHAR)")
    found = collect_questions(
        db, known=catalogue().items, history_items=8, train=20_000, validation=5_000, holdout=2_000, seed=1
    )
    return {"train": len(found.train), "validation": len(found.validation), "holdout": len(found.holdout)}


def baskets(events: Path) -> dict[str, int]:
    """As the gate's baseline counts what is bought together."""
    from reshelve.examples.event_counts import EventCounts
    from reshelve.kinds.next_item.evaluation import Together

    known = catalogue()
    past = EventCounts(events, known, {"click": 1.0}, BEGINS, events.with_suffix(".spill"), EVERYTHING)
    together = Together(past.baskets())
    return {"with item 0": int(together.scores(range(1000)).sum())}


PARTS: dict[str, Callable[[Path], dict[str, int]]] = {
    "rates": rates, "searches": searches, "questions": questions, "baskets": baskets
}  # fmt: skip


def child(part: str, events: Path) -> None:
    """One part, and what this process has used since its start."""
    before, begun = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    found = PARTS[part](events)
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    figures = {
        "cpu_s": round(cpu, 1),
        "wall_s": round(time.monotonic() - begun, 1),
        "peak_mb": used.ru_maxrss // 1024,
    }
    print(json.dumps(figures | found))


def main() -> None:
    """One line of JSON for each part and number of rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child[0], Path(given.child[1]))
        return
    with tempfile.TemporaryDirectory() as scratch:
        for rows in given.rows:
            events = Path(scratch) / f"{rows}.parquet"
            draw(events, rows)
            for part in given.parts:
                command = [sys.executable, __file__, "--child", part, str(events)]
                done = subprocess.run(guarded(command), stdout=subprocess.PIPE, text=True, check=True)
                print(
                    json.dumps({"part": part, "rows": rows} | json.loads(done.stdout.splitlines()[-1])),
                    flush=True,
                )


if __name__ == "__main__":
    main()
