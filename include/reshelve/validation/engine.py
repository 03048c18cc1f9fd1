"""What a partition is judged with: SQL over its files, and the tables that Great Expectations is asked about.

An engine holds these relations:

- `events`: the landed rows in the event columns' own types, NULL where a text is blank, `received_time` (NULL where it is not landed), and
  `_row`, the row's place in the partition's files, from 0;
- `products`: the source's catalogue, item_id and title (empty where there is none);
- whatever `keep` made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import duckdb
import pyarrow as pa

from reshelve.clickstream.database import EVENT_TYPES, column, connect, known, reader, text

RECEIVED = "received_time"
_BATCH = 122_880  # rows: one row group


class EngineError(Exception):
    """An engine cannot answer: a damaged page of a file, or a condition that fails on a value."""


class Engine(Protocol):
    """DuckDB, Spark or pandas."""

    name: str
    apart: bool  # its tables are not DuckDB's

    def keep(self, name: str, query: str) -> None:
        """Make table `name` of what `query` answers."""

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """All rows of an answer that is small."""

    def table(self, query: str) -> pa.Table:
        """An answer that fits in memory: the broken rows, the items."""

    def asset(self, context: Any, table: str) -> Any:
        """`table` as a batch for Great Expectations."""

    def close(self) -> None:
        """Give back what Great Expectations was lent."""


def events_query(files: Sequence[Path], columns: dict[str, str]) -> str:
    """DuckDB's `events` over whole Parquet files, which may differ in further columns."""
    typed = [f"{event_column(name, sql_type)} AS {column(name)}" for name, sql_type in EVENT_TYPES.items()]
    received = f"CAST({column(RECEIVED)} AS TIMESTAMP)" if RECEIVED in columns else "CAST(NULL AS TIMESTAMP)"
    starts = file_starts(files)
    source = f"read_parquet([{', '.join(map(text, files))}], file_row_number = true, filename = '_file', union_by_name = true)"
    place = "file_row_number"
    if len(files) > 1:
        values = ", ".join(f"({text(path)}, {start})" for path, start in starts.items())
        source += f" JOIN (VALUES {values}) AS starts(_name, _start) ON _file = _name"
        place = "_start + file_row_number"
    return (
        f"SELECT {', '.join(typed)}, {received} AS {RECEIVED}, CAST({place} AS BIGINT) AS _row FROM {source}"
    )


def event_column(name: str, sql_type: str) -> str:
    """An event column of a landed file: a text that is blank is not known, whoever landed it."""
    cast = f"CAST({column(name)} AS {sql_type})"
    return known(cast) if sql_type in ("VARCHAR", "STRING") else cast


def file_starts(files: Sequence[Path]) -> dict[Path, int]:
    starts, rows = {}, 0
    for path in files:
        starts[path] = rows
        rows += row_count(path)
    return starts


def row_count(path: Path) -> int:
    """The rows of a Parquet file, by its footer. DuckDB reads it: pyarrow minds what other writers left there."""
    with connect() as db:
        row = db.execute("SELECT num_rows FROM parquet_file_metadata(?)", [str(path)]).fetchone()
    return int(row[0]) if row else 0


class DuckDBEngine:
    """SQL on Parquet in bounded memory: the engine of one machine."""

    name = "duckdb"
    apart = False

    def __init__(
        self,
        db: duckdb.DuckDBPyConnection,
        file: Path,
        files: Sequence[Path],
        products: Path | None = None,
    ) -> None:
        self.db, self._file, self._files = db, file, files
        # A Parquet file's statistics leave NaN out, and by them DuckDB would find a NaN price to be in range.
        db.execute("SET disabled_optimizers = 'statistics_propagation'")
        self._datasource: Any = None
        self._context: Any = None
        made = (
            f"SELECT item_id, title FROM {reader([products])}"
            if products
            else "SELECT '' AS item_id, '' AS title LIMIT 0"
        )
        db.execute(f"CREATE VIEW products AS {made}")

    def open_events(self, columns: dict[str, str]) -> None:
        """Make `events`, once it is known that the event columns are there."""
        self.db.execute(f"CREATE VIEW events AS {events_query(self._files, columns)}")

    def keep(self, name: str, query: str) -> None:
        """Make table `name`."""
        try:
            self.db.execute(f"CREATE TABLE {name} AS {query}")
        except duckdb.Error as error:
            raise EngineError(str(error)) from error

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """All rows of a small answer."""
        return self.db.execute(query).fetchall()

    def table(self, query: str) -> pa.Table:
        """An answer as Arrow."""
        return self.db.sql(query).to_arrow_table()

    def take(self, name: str, table: pa.Table) -> None:
        """Make table `name` of what another engine found."""
        self.db.register("taken", table)
        self.keep(name, "SELECT * FROM taken")
        self.db.unregister("taken")

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Every landed row in the order of the files, as event columns and `_row`.

        One file after the other and without a join: a join gives no order that holds from run to run.
        """
        names = ", ".join(map(column, EVENT_TYPES))
        for path, start in file_starts(self._files).items():
            query = f"SELECT {names}, _row + {start} AS _row FROM ({events_query([path], {})})"
            yield from self.db.cursor().sql(query).to_arrow_reader(_BATCH)

    def asset(self, context: Any, table: str) -> Any:
        """The table or view, through the dialect of this project."""
        from reshelve.validation import duckdb_dialect

        if self._datasource is None:
            self._context = context
            self._datasource = context.data_sources.add_sql(
                name=str(self._file), connection_string=duckdb_dialect.url(self._file)
            )
        asset = self._datasource.add_table_asset(name=table, table_name=table)
        return asset.add_batch_definition_whole_table("all").get_batch()

    def close(self) -> None:
        """Close Great Expectations' connection."""
        if self._datasource is not None:
            self._datasource.get_engine().dispose()
            self._context.data_sources.delete(str(self._file))
