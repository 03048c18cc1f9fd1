"""One key of a mapping file, as it is written and as it is run."""

from __future__ import annotations

from dataclasses import dataclass, replace

import duckdb

from reshelve.raw.formats import raw_format
from reshelve.raw.parsed import casts_in_utc, glued, in_utc
from reshelve.raw.statements import allow_expression

_IDS = ("user_id", "session_id", "item_id")


@dataclass(frozen=True)
class MappingExpression:
    """One key of a mapping file: its SQL, the type that it is cast to, and the column that it makes."""

    key: str
    sql: str
    sql_type: str
    column: str
    made: str = ""  # of `sql`: the cast that is run
    then: str = "{}"  # what becomes of the value

    @property
    def cast(self) -> str:
        """The SQL of the value, in its type."""
        return self.then.format(self.made or f"CAST(({self.sql}) AS {self.sql_type})")

    def over(self, db: duckdb.DuckDBPyConnection, file_format: str) -> MappingExpression:
        """The same as it is run: an id of unknown parts is unknown, and a text with an offset is a time in UTC."""
        query = f"SELECT ({self.sql})"
        if self.column in _IDS:
            query = glued(db, query)
        if raw_format(file_format).is_text:
            query = casts_in_utc(db, query)
        sql = query.removeprefix("SELECT (").removesuffix(")")
        is_text_of_time = raw_format(file_format).is_text and self.sql_type in ("DATE", "TIMESTAMP")
        return replace(
            self, made=in_utc(sql, self.sql_type) if is_text_of_time else f"CAST(({sql}) AS {self.sql_type})"
        )

    def allow(self, db: duckdb.DuckDBPyConnection) -> None:
        """Raise StatementError where the SQL is more than an expression over the raw row."""
        allow_expression(db, self.sql)

    @property
    def expected(self) -> str:
        return f"expected an expression of type {self.sql_type}: {self.sql}"
