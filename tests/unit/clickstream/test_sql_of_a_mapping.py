"""What a mapping file may say in SQL, by its form alone: also what would do no harm is refused where it is more than was asked for."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reshelve.clickstream.database import connect
from reshelve.raw.statements import StatementError, allow_expression, allow_query, allow_type

EXPRESSIONS = {
    "brackets that end ours": "1) + (1",
    "a comment over what follows": "1 --",
    "a comment without an end": "1 /*",
    "another column": "sku, visit",
    "a column by another name": "1 AS x",
    "a column by another name, in short": "sku x",
    "a limit": "(SELECT 1) LIMIT 1",
    "an order": "(SELECT 1) ORDER BY 1",
    "two queries as one": "(SELECT 1) UNION (SELECT 2)",
    "a table": "(SELECT 1) FROM raw",
    "a statement's end": "1;",
    "two statements": "1; SELECT 2",
    "the end of a text in C": "1 \0",
    "a name in capitals": "GETVARIABLE('inner_0')",
    "a quoted name": "\"GetVariable\"('inner_0')",
    "a guess at a file": "(SELECT max(Delimiter) FROM sniff_csv('a.csv'))",
    "another reader's name": "(SELECT count(*) FROM parquet_scan('a.parquet'))",
    "where a secret is": "(SELECT count(*) FROM which_secret('a', 's3'))",
}
QUERIES = {
    "a statement's end": "SELECT * FROM raw;",
    "two statements": "SELECT * FROM raw; SELECT 1",
    "two statements in brackets": "SELECT * FROM raw); SELECT * FROM (SELECT 1",
    "brackets that end ours": "SELECT * FROM raw) UNION ALL (SELECT * FROM raw",
    "a second table": "SELECT * FROM raw) AS a, (SELECT 1",
    "the end of a text in C": "SELECT * FROM raw \0 , x",
}
TYPES = {
    "two statements": "INT); SELECT (1",
    "a condition": "INT) WHERE (true",
    "a limit": "INT) LIMIT (1",
    "another column": "INT), (1",
    "a table": "INT) FROM (SELECT 1",
    "the end of a text in C": "INT\0",
}
OF_THE_MOMENT = {
    "current_date", "current_localtime", "current_localtimestamp", "get_current_time", "get_current_timestamp", "now", "today",
    "transaction_timestamp", "random", "gen_random_uuid", "uuid", "uuidv4", "uuidv7", "error",
}  # fmt: skip
"""What more than a row decides, and is no matter: the clock, chance, and a mapping's own way to stop."""


@pytest.fixture
def db() -> Iterator[duckdb.DuckDBPyConnection]:
    with connect() as made:
        yield made


@pytest.mark.parametrize("sql", EXPRESSIONS.values(), ids=EXPRESSIONS)
def test_an_expression_is_one_and_no_more(db: duckdb.DuckDBPyConnection, sql: str) -> None:
    with pytest.raises(StatementError):
        allow_expression(db, sql, ("raw",))


@pytest.mark.parametrize("sql", QUERIES.values(), ids=QUERIES)
def test_a_query_is_one_and_no_more(db: duckdb.DuckDBPyConnection, sql: str) -> None:
    with pytest.raises(StatementError):
        allow_query(db, sql)


@pytest.mark.parametrize("sql_type", TYPES.values(), ids=TYPES)
def test_a_type_is_one_and_no_more(db: duckdb.DuckDBPyConnection, sql_type: str) -> None:
    with pytest.raises(StatementError):
        allow_type(db, sql_type)


def test_what_is_decided_by_more_than_its_arguments_is_refused_or_known(
    db: duckdb.DuckDBPyConnection,
) -> None:
    """DuckDB says which functions those are: a version with another one does not pass unlooked at."""
    found = db.execute(
        "SELECT DISTINCT function_name FROM duckdb_functions() WHERE stability <> 'CONSISTENT'"
    )
    names = {name for (name,) in found.fetchall()}
    assert {"getvariable", "nextval", "now"} <= names
    for name in sorted(names - OF_THE_MOMENT):
        with pytest.raises(StatementError, match=f"the function {name} is not allowed"):
            allow_expression(db, f'"{name}"()')


NAME = st.sampled_from(["getvariable", "read_text", "glob", "current_setting", "nextval", "duckdb_settings", "pg_sleep", "getenv"])  # fmt: skip
PUT = st.sampled_from(
    [
        "{}('x')", "coalesce(1, {}('x'))", "[{}('x')]", "{{'a': {}('x')}}", "CASE WHEN {}('x') THEN 1 END", "x -> {}('x')",
        "(SELECT {}('x'))", "(SELECT max(a) FROM (SELECT {}('x') AS a))", "list_transform([1], lambda a: {}('x'))", "sum({}('x'))",
        "1 IN ({}('x'), 2)", "{}('x') BETWEEN 1 AND 2", "'x'.{}()", "main.{}('x')", "sum(1) FILTER (WHERE {}('x'))",
        "sum(1) OVER (PARTITION BY {}('x'))", "(SELECT 1 ORDER BY {}('x'))", "(SELECT 1 LIMIT {}('x'))", "CAST({}('x') AS INT)",
        "(WITH t AS (SELECT {}('x') AS a) SELECT a FROM t)", "EXISTS (SELECT {}('x'))", "(VALUES ({}('x')))", "COLUMNS(c -> {}('x'))",
        "(SELECT 1 GROUP BY {}('x'))", "(SELECT DISTINCT ON ({}('x')) 1)", "(FROM range({}('x')))", "struct_pack(a := {}('x'))",
    ]
)  # fmt: skip


@settings(max_examples=40)
@given(NAME, st.lists(PUT, min_size=1, max_size=3), st.booleans())
def test_wherever_it_stands_a_function_that_is_not_allowed_is_seen(
    name: str, places: list[str], capitals: bool
) -> None:
    sql = places[0].format(name.upper() if capitals else name)
    for place in places[1:]:
        sql = place.replace("{}('x')", f"({sql})") if "{}('x')" in place else sql
    with connect() as db, pytest.raises(StatementError):
        allow_expression(db, sql.replace("{{", "{").replace("}}", "}"))


def test_a_database_takes_nothing_from_whoever_opens_it(db: duckdb.DuckDBPyConnection) -> None:
    """No table of a variable of ours, no secret that a person keeps for work of their own, no extension unasked."""
    a_variable = [{"a": 1}]
    assert a_variable
    with pytest.raises(duckdb.CatalogException, match="a_variable does not exist"):
        db.execute("SELECT * FROM a_variable")
    for name in (
        "allow_persistent_secrets", "autoinstall_known_extensions", "autoload_known_extensions", "python_enable_replacements"
    ):  # fmt: skip
        assert db.execute(f"SELECT current_setting('{name}')").fetchone() == (False,), name
