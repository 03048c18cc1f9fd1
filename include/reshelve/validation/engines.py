"""The engines beside DuckDB: Spark for those who outgrow one machine, pandas to compare with.

They find the same rows and give the same verdict; the files are written by DuckDB in every case.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from reshelve.clickstream.database import EVENT_TYPES, column
from reshelve.errors import ConfigurationError
from reshelve.validation.engine import RECEIVED, DuckDBEngine, Engine, EngineError, event_column, file_starts
from reshelve.validation.landed import Landed

_SPARK_TYPES = {"VARCHAR": "STRING", "TIMESTAMP": "TIMESTAMP_NTZ"}
# What the rules' SQL says in DuckDB's words.
_SPARK_FUNCTIONS = (
    "epoch(t TIMESTAMP_NTZ) RETURNS DOUBLE RETURN CAST(CAST(t AS TIMESTAMP_LTZ) AS DOUBLE)",
    "isfinite(x DOUBLE) RETURNS BOOLEAN RETURN NOT isnan(x) AND abs(x) < CAST('infinity' AS DOUBLE)",
    "regexp_matches(t STRING, p STRING) RETURNS BOOLEAN RETURN t RLIKE p",
)


@contextmanager
def another_engine(name: str, duckdb: DuckDBEngine, landed: Landed) -> Iterator[Engine]:
    """The engine that is asked for. Raises ConfigurationError for one that is not known or not installed."""
    if name == "duckdb":
        yield duckdb
        return
    if name == "pandas":
        yield PandasEngine(duckdb)
        return
    if name != "spark":
        raise ConfigurationError(f"{name!r} is not a validation engine", "known: duckdb, spark, pandas")
    engine = SparkEngine(landed, duckdb.table("SELECT item_id, title FROM products"))
    try:
        yield engine
    finally:
        engine.close()


class PandasEngine:
    """Great Expectations on data frames; what it is not asked about (repetitions, bots) is DuckDB's."""

    name = "pandas"
    apart = False

    def __init__(self, duckdb: DuckDBEngine) -> None:
        self._duckdb = duckdb
        self.keep, self.rows, self.table = duckdb.keep, duckdb.rows, duckdb.table

    def asset(self, context: Any, table: str) -> Any:
        """The whole table as a data frame."""
        frame = self._duckdb.db.execute(f"SELECT * FROM {table}").df()
        source = context.data_sources.add_or_update_pandas(name=f"pandas {table}")
        batch = source.add_dataframe_asset(name=table).add_batch_definition_whole_dataframe("all")
        return batch.get_batch(batch_parameters={"dataframe": frame})

    def close(self) -> None:
        """Nothing was lent."""


class SparkEngine:
    """Spark SQL: local on this machine, or the cluster that `SPARK_HOME`'s configuration names."""

    name = "spark"
    apart = True

    def __init__(self, landed: Landed, products: pa.Table) -> None:
        try:
            from pyspark.sql import SparkSession
        except ImportError as error:
            raise ConfigurationError(
                "Spark is not installed", "install the extra: pip install 'reshelve[spark]' (and Java 17)"
            ) from error
        self._spark = (
            SparkSession.builder.appName("reshelve-validate")
            .config("spark.sql.ansi.enabled", "true")
            .config("spark.sql.ansi.doubleQuotedIdentifiers", "true")
            .config("spark.sql.session.timeZone", "UTC")
            .config("spark.sql.timestampType", "TIMESTAMP_NTZ")
            .config("spark.ui.enabled", "false")
            .config("spark.ui.showConsoleProgress", "false")
            .getOrCreate()
        )
        self._spark.sparkContext.setLogLevel("ERROR")
        for function in _SPARK_FUNCTIONS:
            self._spark.sql(f"CREATE OR REPLACE TEMPORARY FUNCTION {function}")
        self._open(landed)
        self._spark.createDataFrame(
            products.to_pylist(), "item_id STRING, title STRING"
        ).createOrReplaceTempView("products")

    def _open(self, landed: Landed) -> None:
        parts: list[str] = []
        for path, start in file_starts(landed.files).items():
            view = f"file_{start}_{len(parts)}"
            frame = self._spark.read.parquet(str(path)).select("*", "_metadata.row_index")
            frame.createOrReplaceTempView(view)
            typed = [
                f"{event_column(name, _SPARK_TYPES.get(kind, kind))} AS {column(name)}"
                for name, kind in EVENT_TYPES.items()
            ]
            received = (
                f"CAST({RECEIVED} AS TIMESTAMP_NTZ)"
                if RECEIVED in frame.columns
                else "CAST(NULL AS TIMESTAMP_NTZ)"
            )
            parts.append(
                f"SELECT {', '.join(typed)}, {received} AS {RECEIVED}, row_index + {start} AS _row FROM {view}"
            )
        self._spark.sql(" UNION ALL ".join(parts)).createOrReplaceTempView("events")

    def keep(self, name: str, query: str) -> None:
        """Cache what the query answers under a name."""
        from pyspark.errors import PySparkException

        try:
            frame = self._spark.sql(query).cache()
            frame.count()
        except PySparkException as error:
            raise EngineError(str(error)) from error
        frame.createOrReplaceTempView(name)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """All rows of a small answer."""
        return [tuple(row) for row in self._spark.sql(query).collect()]

    def table(self, query: str) -> pa.Table:
        """An answer as Arrow."""
        return self._spark.sql(query).toArrow()

    def asset(self, context: Any, table: str) -> Any:
        """The table as a Spark data frame."""
        source = context.data_sources.add_or_update_spark(name=f"spark {table}")
        batch = source.add_dataframe_asset(name=table).add_batch_definition_whole_dataframe("all")
        return batch.get_batch(batch_parameters={"dataframe": self._spark.table(table)})

    def close(self) -> None:
        """Forget what was kept; the session serves the next partition."""
        self._spark.catalog.clearCache()
