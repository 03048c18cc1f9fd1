"""When two queries are one. Said once, in SQL: a window has too many events for Python, and two wordings of one rule part ways
on the first tab, no-break space or Turkish capital."""

from __future__ import annotations

from functools import cache, lru_cache

import duckdb

from reshelve.clickstream.database import connect

# White space of every script and control characters that Unicode counts as such; \s alone is ASCII's.
_SPACE = r"[\s\p{Z}\x0b\x1c-\x1f\x{85}]+"


def normalised_sql(column: str) -> str:
    """The SQL expression for the normalised form of a column: lower case, composed, single spaces, none at the ends."""
    return f"nfc_normalize(lower(trim(regexp_replace({column}, '{_SPACE}', ' ', 'g'))))"


@lru_cache(maxsize=100_000)
def normalised(query: str) -> str:
    """The same of one query, by the same expression."""
    found = _database().execute(f"SELECT {normalised_sql('?')}", [query]).fetchone()
    assert found is not None
    return str(found[0])


@cache
def _database() -> duckdb.DuckDBPyConnection:
    return connect()
