"""The examples stage of search and of impressions by events, and the counts of `bench_events`, whose events these are.

The stage is measured from the fetched partitions on, with the sample's rankers; what a night fetches costs the network.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import bench_events
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from scale_given import Given
from scale_steps import Found, Step, megabytes

from reshelve.clickstream.database import EVENT_TYPES
from reshelve.config.ranker import Ranker
from reshelve.examples.build import write_events
from reshelve.examples.catalogue import build_catalogue
from reshelve.examples.partitions import split_by_time
from reshelve.examples.size import check_size
from reshelve.examples.window import open_events, open_window
from reshelve.examples.workspace import Workspace
from reshelve.kind_registry import kind_of
from reshelve.lineage.run import Run
from reshelve.model.base import resolve_base
from reshelve.pipeline.references import load_ranker
from reshelve.store.objects import ObjectStore

_RANKERS = {"searched": "search", "shown": "ads"}
_CHOICE_SECONDS = 20  # after an impression

# A day of events of one kind; what is chosen of what was shown follows it.
_SEARCHED = "SELECT * FROM drawn"
_SHOWN = f"""
SELECT * REPLACE ('impression' AS event_type) FROM drawn UNION ALL BY NAME
SELECT * REPLACE (event_time + INTERVAL {_CHOICE_SECONDS} SECOND AS event_time) FROM drawn WHERE chosen_on IS NOT NULL
"""


def draw(here: Path, given: Given, rows: int) -> Step:
    """Events of `bench_events` in one file, and as fetched partitions, searched and shown."""

    def step() -> Found:
        events = here / "events.parquet"
        bench_events.draw(events, rows)
        for name, sql in (("searched", _SEARCHED), ("shown", _SHOWN)):
            write_days(events, here / name, sql)
        found = bench_events.catalogue()
        pq.write_table(
            pa.table({"item_id": list(found.items), "title": list(found.titles)}), here / "products.parquet"
        )
        return {"disk_mb": megabytes(here)}

    return step


def write_days(events: Path, folder: Path, sql: str) -> None:
    """A file a day, with every column that a landed event has."""
    folder.mkdir(exist_ok=True)
    db = duckdb.connect()
    for number in range(bench_events.DAYS):
        day = bench_events.FIRST + timedelta(days=number)
        drawn = f"SELECT * FROM read_parquet('{events}') WHERE day = DATE '{day}'"
        db.execute(f"CREATE OR REPLACE VIEW drawn AS {drawn}")
        there = set(db.sql(sql).columns)
        columns = ", ".join(
            name if name in there else f"CAST(NULL AS {sql_type}) AS {name}" for name, sql_type in EVENT_TYPES.items()
        )  # fmt: skip
        db.execute(
            f"COPY (SELECT {columns} FROM ({sql}) ORDER BY event_time) TO '{folder / f'{day}.parquet'}'"
        )
    db.close()


def examples(here: Path, given: Given, name: str) -> Step:
    """The examples stage over `searched` or `shown`."""
    ranker = load_ranker(_RANKERS[name])

    def step() -> Found:
        directory = here / f"{name}-examples"
        directory.mkdir()
        files = sorted((here / name).glob("*.parquet"))
        return dict(_stage(ranker, files, here / "products.parquet", directory))

    return step


def _stage(ranker: Ranker, files: list[Path], products: Path, directory: Path) -> dict[str, int]:
    """As `build_examples` does it, once partitions are there."""
    days = dict.fromkeys((date.fromisoformat(path.stem) for path in files), "")
    split = split_by_time(usable=days, excluded={}, data=ranker.data)
    run = Run(
        ranker, split.days[-1], ObjectStore("none"), directory / "work"
    )  # nothing is asked of the store
    base = resolve_base(ranker.model.base, run.store)
    (directory / "tokenizer.json").write_bytes((base.path / "tokenizer.json").read_bytes())
    connection = open_window(files, split, ranker.data.label_weights, products, directory / "spill")
    open_events(connection, split, ranker.data.exclude)
    kind = kind_of(ranker.kind)
    kind.examples.prepare(ranker, connection, split.begins)
    catalogue = build_catalogue(
        connection, split.begins, ranker.data.catalogue_days, listed=kind.listed, by_demand=True
    )
    catalogue.write(directory / "catalogue.parquet")
    write_events(connection, directory / "events.parquet")
    work = Workspace(run, directory, directory, split, connection, catalogue)
    check_size(work, base)
    counts = kind.examples.write(work)
    connection.close()
    return counts


def counted(here: Path, given: Given, part: str) -> Step:
    """A part of `bench_events`, over the same events."""
    measured: Callable[[Path], dict[str, int]] = bench_events.PARTS[part]
    return lambda: dict(measured(here / "events.parquet"))
