"""The product list of a source: one object, replaced by each landing."""

from __future__ import annotations

import filecmp
import shutil
from pathlib import Path

import duckdb
import pyarrow as pa

from reshelve.clickstream.database import write_parquet
from reshelve.clickstream.events import catalogue_key
from reshelve.logs import logger
from reshelve.raw.sources import ClickstreamSource
from reshelve.store.objects import ObjectStore

CATALOGUE_SCHEMA = pa.schema([pa.field("item_id", pa.string()), pa.field("title", pa.string())])
"""The product list of a source."""

_MANY_GONE = 0.1  # of the items: a list that is cut off looks like that


def write_products(db: duckdb.DuckDBPyConnection, path: Path) -> int:
    """Write the table `products` as a product list, one row an item with the first title that is known; returns how many."""
    return write_parquet(
        db,
        "SELECT item_id, arg_min(title, row) AS title FROM products WHERE item_id IS NOT NULL"
        " GROUP BY item_id ORDER BY item_id",
        path,
        CATALOGUE_SCHEMA,
    )


def land_catalogue(
    db: duckdb.DuckDBPyConnection, mapping: ClickstreamSource, store: ObjectStore, directory: Path
) -> dict[str, int] | None:
    """Write the product list of `products` (one row an item, the first title that is known), or do nothing where there is none.

    Returns its `items`, how many have no title (`untitled`), and how many are `new`, `gone` or `retitled` since it was landed before.
    """
    if mapping.catalogue is None:
        return None
    path = directory / "products.parquet"
    items = write_products(db, path)
    key = catalogue_key(mapping.name)
    before, there = directory / "before.parquet", store.exists(key)
    if there:
        store.download_file(key, before)
    else:
        shutil.copyfile(path, before)
    changes = _changes(db, before, path)
    if not (there and filecmp.cmp(before, path, shallow=False)):
        store.upload_file(path, key)
    log = logger(stage="land", source=mapping.name)
    (log.warning if changes["gone"] > _MANY_GONE * items else log.info)("catalogue", items=items, **changes)
    return {"items": items, **changes}


def _changes(db: duckdb.DuckDBPyConnection, before: Path, now: Path) -> dict[str, int]:
    """What became of the items of one product list in another."""
    (row,) = db.execute(
        """SELECT count(*) FILTER (now.item_id IS NOT NULL AND now.title IS NULL),
                  count(*) FILTER (before.item_id IS NULL), count(*) FILTER (now.item_id IS NULL),
                  count(*) FILTER (before.item_id = now.item_id AND before.title IS DISTINCT FROM now.title)
           FROM read_parquet($before) AS before FULL JOIN read_parquet($now) AS now ON before.item_id = now.item_id""",
        {"before": str(before), "now": str(now)},
    ).fetchall()
    return dict(zip(("untitled", "new", "gone", "retitled"), row, strict=True))
