"""DuckDB for SQLAlchemy 2.1, as far as Great Expectations needs it: reading tables and views of one file.

DuckDB speaks PostgreSQL's SQL, so SQLAlchemy's PostgreSQL dialect writes the statements. Two things are
DuckDB's own: what tables look like comes from `duckdb_columns()`, for there is no `pg_collation`; and a
cursor holds all its rows, for Great Expectations fetches after the connection went back to the pool.
(`duckdb_engine` 0.17 fails at both, see docs/decisions/0010-great-expectations-on-duckdb.md.)
"""

from __future__ import annotations

from collections import deque
from pathlib import Path
from types import ModuleType
from typing import Any

import duckdb
import sqlalchemy
from sqlalchemy import types
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.engine.url import URL
from sqlalchemy.exc import NoSuchTableError
from sqlalchemy.pool import QueuePool

from reshelve.clickstream.database import connect


class BufferedCursor:
    """A DB-API cursor that holds all rows of its statement."""

    arraysize = 1
    rowcount = -1

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._rows: deque[tuple[Any, ...]] = deque()
        self.description: Any = None

    def execute(self, statement: str, parameters: Any = None) -> None:
        """Run one statement and fetch everything."""
        self._connection.execute(statement, list(parameters) if parameters else None)
        self.description = self._connection.description
        self._rows = deque(self._connection.fetchall() if self.description else [])

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row, or None."""
        return self._rows.popleft() if self._rows else None

    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        """The next `size` rows."""
        return [self._rows.popleft() for _ in range(min(size or self.arraysize, len(self._rows)))]

    def fetchall(self) -> list[tuple[Any, ...]]:
        """All rows that are left."""
        return self.fetchmany(len(self._rows))

    def close(self) -> None:
        """Forget the rows; the connection stays open."""
        self._rows.clear()


class BufferedConnection:
    """A DB-API connection whose cursors are buffered. Each statement is its own transaction."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def cursor(self) -> BufferedCursor:
        """A cursor on the one connection."""
        return BufferedCursor(self._connection)

    def commit(self) -> None:
        """Nothing is open."""

    def rollback(self) -> None:
        """Nothing is open."""

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


class DuckDBDialect(PGDialect):
    """PostgreSQL's statements, DuckDB's reflection."""

    name = "duckdb"
    driver = "reshelve"
    supports_statement_cache = True
    supports_sane_rowcount = False
    default_paramstyle = "qmark"
    poolclass = QueuePool

    @classmethod
    def import_dbapi(cls) -> ModuleType:  # type: ignore[override]
        """DuckDB is its own DB-API module."""
        return duckdb

    def create_connect_args(self, url: URL) -> Any:
        """The file is all there is to say."""
        return (url.database,), {}

    def connect(self, *arguments: Any, **_: Any) -> Any:
        """Open the file exactly as the rest of this process does: DuckDB refuses two settings for one file."""
        return BufferedConnection(connect(arguments[0]))

    def initialize(self, connection: Any) -> None:
        """Leave out what PGDialect asks a PostgreSQL server about itself."""
        DefaultDialect.initialize(self, connection)

    def on_connect(self) -> Any:
        """No session settings."""
        return None

    def get_default_isolation_level(self, dbapi_conn: Any) -> Any:
        """DuckDB has one isolation level and no way to ask for it."""
        raise NotImplementedError

    def _get_server_version_info(self, connection: Any) -> tuple[int, ...]:
        return (16, 0)  # the PostgreSQL whose SQL is written

    def _get_default_schema_name(self, connection: Any) -> str:
        return "main"

    def get_columns(self, connection: Any, table_name: str, schema: str | None = None, **_: Any) -> Any:
        """Columns of a table or view. Raises NoSuchTableError."""
        rows = connection.execute(
            sqlalchemy.text(
                "SELECT column_name, data_type, is_nullable FROM duckdb_columns()"
                " WHERE table_name = :name AND schema_name = :schema ORDER BY column_index"
            ),
            {"name": str(table_name), "schema": schema or "main"},
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
        """A partition has no keys."""
        return {"constrained_columns": [], "name": None}


class UnknownType(types.NullType):
    """A DuckDB type that no rule can ask for (a list, a struct, a decimal …)."""


_TYPES: dict[str, type[types.TypeEngine[Any]]] = {
    "BIGINT": types.BIGINT,
    "BOOLEAN": types.BOOLEAN,
    "DATE": types.DATE,
    "DOUBLE": types.DOUBLE,
    "FLOAT": types.FLOAT,
    "INTEGER": types.INTEGER,
    "SMALLINT": types.SMALLINT,
    "TIMESTAMP": types.TIMESTAMP,
    "TIMESTAMP_MS": types.TIMESTAMP,
    "TIMESTAMP_NS": types.TIMESTAMP,
    "TIMESTAMP_S": types.TIMESTAMP,
    "TIMESTAMP WITH TIME ZONE": types.TIMESTAMP,
    "TINYINT": types.SMALLINT,
    "VARCHAR": types.VARCHAR,
}


def type_name(data_type: str) -> str:
    """How rules name DuckDB's `data_type`: the several TIMESTAMPs are one."""
    return _TYPES[data_type].__name__ if data_type in _TYPES else data_type


def _type(data_type: str) -> types.TypeEngine[Any]:
    return _TYPES.get(data_type, UnknownType)()


def url(path: Path) -> str:
    """The SQLAlchemy URL of a database file; makes the dialect known."""
    registry.register("duckdb.reshelve", __name__, DuckDBDialect.__name__)
    return URL.create("duckdb+reshelve", database=str(path)).render_as_string()
