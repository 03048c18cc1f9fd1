"""The window's events behind one SQL view, whatever their number: DuckDB over Parquet files, with a memory limit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb

from reshelve.clickstream.database import EVENT_TYPES, column, connect, known
from reshelve.config.ranker import Exclude
from reshelve.examples.exclude import leave_out
from reshelve.examples.partitions import Split
from reshelve.examples.queries import normalised_sql

_BATCH = 20_000

# Partitions that were validated before blanks were read as unknown still hold them.
_TEXTS = [column(name) for name, sql_type in EVENT_TYPES.items() if sql_type == "VARCHAR"]

# One row per label event of the window. `day` and `line` order events of one instant as the shop wrote them.
_EVENTS = """
CREATE VIEW events AS
SELECT {norm} AS norm,
       day, {part} AS part, line, event_time, files.event_type, weight, user_id, session_id, query,
       files.item_id, nullif(trim(item_title), '') AS own_title, position, grade,
       nullif(trim(category), '') AS category, nullif(trim(segment), '') AS segment
FROM (SELECT *, CAST(left(parse_filename(filename), 10) AS DATE) AS day, file_row_number AS line FROM files) AS files
JOIN labels USING (event_type) JOIN split USING (day)
WHERE files.item_id IS NOT NULL
"""


def open_window(
    files: list[Path], split: Split, labels: dict[str, float], products: Path | None, spill: Path
) -> duckdb.DuckDBPyConnection:
    """A database with the views and tables `all_files`, `products` and `split`; `open_events` adds `files` and `events`.

    `files` are named `YYYY-MM-DD…parquet` after their partition; `labels` maps event types to weights.
    """
    connection = connect(spill=spill)
    blank = ", ".join(f"{known(name)} AS {name}" for name in _TEXTS)
    connection.read_parquet(
        [str(path) for path in files],  # type: ignore[arg-type]
        filename=True,
        file_row_number=True,
        union_by_name=True,
    ).project(f"* REPLACE ({blank})").create_view("all_files")
    connection.execute("CREATE TABLE labels (event_type VARCHAR, weight DOUBLE)")
    connection.executemany("INSERT INTO labels VALUES (?, ?)", sorted(labels.items()))
    connection.execute("CREATE TABLE split (day DATE, part VARCHAR)")
    connection.executemany("INSERT INTO split VALUES (?, ?)", [(day, split.part(day)) for day in split.days])
    connection.execute("CREATE TABLE products (item_id VARCHAR, title VARCHAR)")
    if products is not None:
        connection.execute(
            f"""INSERT INTO products SELECT {known("CAST(item_id AS VARCHAR)")} AS item, max(nullif(trim(title), ''))
               FROM read_parquet(?) WHERE item IS NOT NULL GROUP BY 1""",
            [str(products)],
        )
    return connection


def open_events(connection: duckdb.DuckDBPyConnection, split: Split, exclude: Exclude) -> dict[str, int]:
    """Add the views `files` and `events`, without what `exclude` names. Returns how many items each of its patterns fits."""
    fits = leave_out(connection, exclude)
    part = split.fold.part if split.fold else "split.part"
    connection.execute(_EVENTS.format(part=part, norm=normalised_sql("query")))
    return fits


def stream(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: Any = None
) -> Iterator[tuple[Any, ...]]:
    """The rows of a query, a batch at a time."""
    for batch in connection.sql(sql, params=parameters).to_arrow_reader(_BATCH):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
