"""What a shop sells that is no product (postage, fees, corrections): in no example, no catalogue and no count."""

from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb

if TYPE_CHECKING:
    from reshelve.config.ranker import Exclude

# An item is what its id, its title and its category usually say: one line with a wrong title makes no product a service.
_SQL = """
CREATE TABLE excluded AS
WITH seen AS (
    SELECT item_id, nullif(trim(item_title), '') AS title, nullif(trim(category), '') AS category
    FROM all_files WHERE item_id IS NOT NULL
),
titles AS (SELECT item_id, title FROM seen WHERE title IS NOT NULL GROUP BY item_id, title
           QUALIFY row_number() OVER (PARTITION BY item_id ORDER BY count(*) DESC, title) = 1),
categories AS (SELECT item_id, category FROM seen WHERE category IS NOT NULL GROUP BY item_id, category
               QUALIFY row_number() OVER (PARTITION BY item_id ORDER BY count(*) DESC, category) = 1),
items AS (SELECT item_id FROM seen UNION SELECT item_id FROM products),
said AS (
    SELECT item_id, 'items' AS key, item_id AS text FROM items
    UNION ALL SELECT item_id, 'titles', coalesce(products.title, titles.title)
              FROM items LEFT JOIN titles USING (item_id) LEFT JOIN products USING (item_id)
    UNION ALL SELECT item_id, 'categories', category FROM categories
)
SELECT DISTINCT item_id, key, pattern FROM said JOIN patterns USING (key) WHERE trim(text) ILIKE written ESCAPE '\\'
"""


def leave_out(connection: duckdb.DuckDBPyConnection, exclude: Exclude) -> dict[str, int]:
    """Make the view `files` of `all_files`, without what `exclude` names, and take that out of `products` too.

    Returns how many items each pattern fits, by `key: pattern`.
    """
    patterns = [
        (key, pattern, _written(pattern)) for key, found in exclude for pattern in dict.fromkeys(found)
    ]
    connection.execute("CREATE TABLE patterns (key VARCHAR, pattern VARCHAR, written VARCHAR)")
    if patterns:
        connection.executemany("INSERT INTO patterns VALUES (?, ?, ?)", patterns)
    connection.execute(_SQL)
    connection.execute("DELETE FROM products WHERE item_id IN (SELECT item_id FROM excluded)")
    connection.execute(
        "CREATE VIEW files AS SELECT * FROM all_files"
        " WHERE item_id IS NULL OR item_id NOT IN (SELECT item_id FROM excluded)"
    )
    counts = connection.execute(
        "SELECT key, pattern, count(DISTINCT item_id) FROM patterns LEFT JOIN excluded USING (key, pattern) GROUP BY ALL"
    ).fetchall()
    found = {(key, pattern): number for key, pattern, number in counts}
    return {f"{key}: {pattern}": found[key, pattern] for key, pattern, _ in patterns}


def _written(pattern: str) -> str:
    """A pattern whose `*` stands for any text, as LIKE reads it."""
    for letter in "\\%_":
        pattern = pattern.replace(letter, f"\\{letter}")
    return pattern.strip().replace("*", "%")
