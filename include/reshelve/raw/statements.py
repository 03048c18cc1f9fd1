"""What a mapping file may say in SQL: one expression, one query over its raw rows, or one type. All else is refused unread.

DuckDB's own parser says what is written, so nothing is guessed from the text. That a statement finds nothing outside even
where this lets one through is the database's part: `clickstream.database.confine`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import duckdb

from reshelve.raw.parsed import nodes, tree

_QUERIES = {
    "SELECT_NODE",
    "SET_OPERATION_NODE",
    "RECURSIVE_CTE_NODE",
    "CTE_NODE",
}  # none that changes a table
_TABLES = {"EMPTY", "BASE_TABLE", "SUBQUERY", "JOIN", "TABLE_FUNCTION", "EXPRESSION_LIST", "PIVOT"}
_TABLE_FUNCTIONS = {"unnest", "range", "generate_series", "json_each", "json_tree", "repeat", "repeat_row"}
_PLAIN = {  # what a SELECT of one expression does not have
    "modifiers", "where_clause", "group_expressions", "group_sets", "having", "sample", "qualify",
}  # fmt: skip
# Scalar functions that tell of the process and its database, or change them. DuckDB's names for the like begin alike.
_OUTSIDE = {
    "checkpoint", "database_list", "database_size", "extension_versions", "force_checkpoint", "get_block_size", "getenv",
    "getvariable", "in_search_path", "import_database", "copy_database", "nextval", "currval", "query", "query_table",
    "parse_duckdb_log_message", "session_user", "set_config", "setseed", "setval", "show_databases", "show_tables", "show_tables_expanded",
    "sleep_ms", "stats", "table_info", "txid_current", "user_agent", "vector_type", "version", "write_log",
}  # fmt: skip
_OUTSIDE_BEGINNINGS = (
    "__internal", "current_", "disable_", "duckdb_", "enable_", "glob", "has_", "json_execute", "pg_", "pragma_", "read_",
)  # fmt: skip
_HARMLESS = {"current_date", "current_localtime", "current_localtimestamp", "pg_typeof"}


class StatementError(Exception):
    """SQL that a mapping file may not hold; the message says why."""


def allow_expression(db: duckdb.DuckDBPyConnection, sql: str, tables: Collection[str] = ()) -> None:
    """Raise StatementError unless `sql` is one expression over the columns of a row, whose subqueries read `tables` alone.

    Read by itself, so that no bracket of its own ends what it is put into; and as it is put there.
    """
    for query in (f"SELECT {sql}", f"SELECT ({sql})"):
        node = _only_statement(db, query)
        further = [key for key in _PLAIN if node.get(key)]
        if (
            node.get("type") != "SELECT_NODE"
            or node["from_table"]["type"] != "EMPTY"
            or node["cte_map"]["map"]
        ):
            raise StatementError("this is a query; expected one expression")
        (first, *others) = node["select_list"]
        if others or further or first.get("alias"):
            raise StatementError("expected one expression, without a comma, an alias or a clause after it")
        _allow(node, set(tables))


def allow_query(db: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Raise StatementError unless `sql` is one query that reads the table `raw`, and what it makes of it."""
    for query in (sql, f"SELECT * FROM (\n{sql}\n)"):
        _allow(_only_statement(db, query), {"raw"})


def allow_type(db: duckdb.DuckDBPyConnection, sql_type: str) -> None:
    """Raise StatementError unless `sql_type` is a type and no more: it is written behind `AS`."""
    node = _only_statement(db, f"SELECT CAST(NULL AS {sql_type})")
    (cast, *others) = node.get("select_list", [{}])
    plain = cast.get("type") == "OPERATOR_CAST" and cast["child"]["type"] == "VALUE_CONSTANT"
    if not plain or others or node["from_table"]["type"] != "EMPTY" or any(node.get(key) for key in _PLAIN):
        raise StatementError("expected one type")


def _only_statement(db: duckdb.DuckDBPyConnection, query: str) -> Mapping[str, Any]:
    if "\0" in query:  # where a text in C ends
        raise StatementError("it contains the character NUL")
    found = tree(db, query)
    if found["error"]:
        said = str(found["error_message"])
        raise StatementError("only SELECT is allowed" if said.startswith("Only SELECT") else said)
    if len(found["statements"]) != 1:
        raise StatementError(f"expected one statement, there are {len(found['statements'])}")
    node: Mapping[str, Any] = found["statements"][0]["node"]
    return node


def _allow(statement: Mapping[str, Any], tables: set[str]) -> None:
    """Raise StatementError for the first part of a parsed statement that reaches beyond the raw rows."""
    every = list(nodes(statement))
    own = {entry["key"].lower() for node in every for entry in node.get("cte_map", {}).get("map", ())}
    own |= {str(node["cte_name"]).lower() for node in every if "cte_name" in node}
    for node in every:
        kind = node.get("type")
        if "cte_map" in node and kind not in _QUERIES:
            raise StatementError("only SELECT is allowed")
        if "class" not in node and {"alias", "sample"} <= node.keys() and kind not in _TABLES:
            raise StatementError("only tables of raw rows can be read here")
        if kind == "BASE_TABLE":
            _allow_table(node, tables | own)
        elif kind == "TABLE_FUNCTION":
            name = str(node["function"].get("function_name", "")).lower()
            if name not in _TABLE_FUNCTIONS:
                raise StatementError(f"the table function {name} is not allowed; {_may_read(tables)}")
        elif "function_name" in node:
            _allow_function(str(node["function_name"]).lower())


def _allow_table(node: Mapping[str, Any], known: set[str]) -> None:
    name = ".".join(filter(None, (node["catalog_name"], node["schema_name"], node["table_name"])))
    if name.lower() not in known:
        raise StatementError(f"the table {name} is not allowed; {_may_read(known)}")


def _may_read(tables: set[str]) -> str:
    listed = f"read {', '.join(sorted(tables))}, or " if tables else "use "
    return f"{listed}{', '.join(sorted(_TABLE_FUNCTIONS))}"


def _allow_function(name: str) -> None:
    outside = name in _OUTSIDE or name.startswith(_OUTSIDE_BEGINNINGS)
    if outside and name not in _HARMLESS:
        raise StatementError(
            f"the function {name} is not allowed: it tells of, or changes, more than the row"
        )
