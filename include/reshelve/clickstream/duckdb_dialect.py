"""DuckDB for SQLAlchemy 2.1, as far as Great Expectations needs it: `duckdb+reshelve:////path/to/file`.

`duckdb_engine` is the base; two of its ways no longer work. It reflects through `pg_collation`, which
DuckDB does not have; and its cursors read from the connection, so a result is gone once the
connection went back to the pool, while Great Expectations fetches after that.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import duckdb
import duckdb_engine
import sqlalchemy
from sqlalchemy.dialects import registry
from sqlalchemy.engine.url import URL
from sqlalchemy.exc import NoSuchTableError

from reshelve.clickstream.database import connect


class BufferedCursor(duckdb_engine.CursorWrapper):
    """A DB-API cursor that holds all rows of its statement: they outlive the connection's next statement."""

    arraysize = 1
    rowcount = -1

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, wrapper: duckdb_engine.ConnectionWrapper
    ) -> None:
        super().__init__(connection, wrapper)
        self._raw = connection
        self._rows: deque[tuple[Any, ...]] = deque()
        self.description: Any = None

    def execute(self, statement: str, parameters: Any = None, context: Any = None) -> None:
        """Run one statement and fetch everything."""
        super().execute(statement, parameters, context)
        self.description = self._raw.description
        self._rows = deque(self._raw.fetchall() if self.description else [])

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row, or None."""
        return self._rows.popleft() if self._rows else None

    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        """The next `size` rows."""
        return [self._rows.popleft() for _ in range(min(size or self.arraysize, len(self._rows)))]

    def fetchall(self) -> list[tuple[Any, ...]]:
        """All rows that are left."""
        return self.fetchmany(len(self._rows))


class _Connection(duckdb_engine.ConnectionWrapper):
    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        super().__init__(connection)
        self._raw = connection

    def cursor(self) -> BufferedCursor:
        return BufferedCursor(self._raw, self)


class DuckDBDialect(duckdb_engine.Dialect):
    """`duckdb_engine` with reflection by `duckdb_columns()` and buffered cursors."""

    driver = "reshelve"
    supports_statement_cache = False

    def connect(self, *arguments: Any, **keywords: Any) -> Any:
        """Open the file exactly as the rest of this process does: DuckDB refuses two settings for one file."""
        return _Connection(connect(keywords["database"]))

    def get_columns(self, connection: Any, table_name: str, schema: str | None = None, **_: Any) -> Any:
        """Columns of a table or view. Raises NoSuchTableError."""
        rows = connection.execute(
            sqlalchemy.text(
                "SELECT column_name, data_type, is_nullable FROM duckdb_columns()"
                " WHERE table_name = :name AND schema_name = :schema ORDER BY column_index"
            ),
            {"name": table_name, "schema": schema or "main"},
        ).fetchall()
        if not rows:
            raise NoSuchTableError(table_name)
        return [
            {"name": name, "type": _type(data_type), "nullable": nullable, "default": None}
            for name, data_type, nullable in rows
        ]

    def has_table(self, connection: Any, table_name: str, schema: str | None = None, **_: Any) -> bool:
        """Whether a table or view of that name exists."""
        try:
            return bool(self.get_columns(connection, table_name, schema))
        except NoSuchTableError:
            return False

    def get_pk_constraint(self, connection: Any, table_name: str, schema: str | None = None, **_: Any) -> Any:
        """Views over Parquet have no keys."""
        return {"constrained_columns": [], "name": None}


class UnknownType(sqlalchemy.types.NullType):
    """A DuckDB type that no rule can ask for (a list, a struct, a decimal …)."""


_TYPES: dict[str, type[sqlalchemy.types.TypeEngine[Any]]] = {
    "BIGINT": sqlalchemy.BIGINT,
    "BOOLEAN": sqlalchemy.BOOLEAN,
    "DATE": sqlalchemy.DATE,
    "DOUBLE": sqlalchemy.DOUBLE,
    "FLOAT": sqlalchemy.FLOAT,
    "INTEGER": sqlalchemy.INTEGER,
    "SMALLINT": sqlalchemy.SMALLINT,
    "TIMESTAMP": sqlalchemy.TIMESTAMP,
    "TIMESTAMP_MS": sqlalchemy.TIMESTAMP,
    "TIMESTAMP_NS": sqlalchemy.TIMESTAMP,
    "TIMESTAMP_S": sqlalchemy.TIMESTAMP,
    "TIMESTAMP WITH TIME ZONE": sqlalchemy.TIMESTAMP,
    "TINYINT": sqlalchemy.SMALLINT,
    "VARCHAR": sqlalchemy.VARCHAR,
}


def type_name(data_type: str) -> str:
    """How rules name DuckDB's `data_type`: the several TIMESTAMPs are one."""
    return _TYPES[data_type].__name__ if data_type in _TYPES else data_type


def _type(data_type: str) -> sqlalchemy.types.TypeEngine[Any]:
    return _TYPES.get(data_type, UnknownType)()


def url(path: Any) -> str:
    """The SQLAlchemy URL of a database file; makes the dialect known."""
    registry.register("duckdb.reshelve", __name__, DuckDBDialect.__name__)
    return URL.create("duckdb+reshelve", database=str(path)).render_as_string()
