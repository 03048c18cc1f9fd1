"""The product list that a refresh reads: the one that was landed, or a file of the same two columns."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from reshelve.clickstream.database import connect, is_blank
from reshelve.clickstream.events import catalogue_key
from reshelve.config.ranker import Exclude, Ranker
from reshelve.errors import ConfigurationError, DataError
from reshelve.examples.exclude import leave_out
from reshelve.files import digest_of_file
from reshelve.store.objects import ObjectStore

_COLUMNS = ("item_id", "title")
_EXPECTED = "expected a Parquet or CSV file with the columns item_id and title, one row an item"


@dataclass(frozen=True)
class ProductList:
    """Item id → its title, None of an untitled one. `digest`: sha256 of the file."""

    titles: dict[str, str | None]
    digest: str


def read_products(store: ObjectStore, ranker: Ranker, given: Path | None, scratch: Path) -> ProductList:
    """The list in `given`, or else that of the ranker's source, without what `data.exclude` names.

    Raises DataError naming the line where a row is none, or where no list was landed; ConfigurationError where the file is not there.
    """
    path = _landed(store, ranker.data.source, scratch) if given is None else given
    if not path.is_file():
        raise ConfigurationError(f"--from {path}: there is no such file", _EXPECTED)
    try:
        rows = _parquet(path) if path.suffix == ".parquet" else _csv(path)
        titles = _each_once(rows, path, "row" if path.suffix == ".parquet" else "line")
    except (pa.ArrowException, OSError, csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read", f"{_EXPECTED}\n{type(error).__name__}") from error
    kept = _without(titles, ranker.data.exclude)
    if not kept:
        raise DataError(f"{path}: no product in it", _EXPECTED)
    return ProductList(kept, digest_of_file(path))


def _landed(store: ObjectStore, source: str, scratch: Path) -> Path:
    key = catalogue_key(source)
    if not store.exists(key):
        raise DataError(
            f"no product list of {source} was landed",
            "expected `catalogue` in its mapping file, and `reshelve land`; or a list by --from",
        )
    path = scratch / "products.parquet"
    store.download_file(key, path)
    return path


# As a night reads the list: an id is taken as it is written, of a title what SQL's trim takes away goes, a tab stays.
_TRIMMED = "".join(map(chr, (32, 160, 5760, *range(8192, 8203), 8239, 8287, 12288)))

Row = tuple[int, str | None, str | None]  # its place in the file, from 1


def _parquet(path: Path) -> Iterator[Row]:
    table = pq.ParquetFile(path)
    _require_columns(table.schema_arrow.names, f"{path}")
    place = 0
    for batch in table.iter_batches(columns=list(_COLUMNS)):
        columns = (batch[name].cast(pa.string()).to_pylist() for name in _COLUMNS)
        for item, title in zip(*columns, strict=True):
            place += 1
            yield place, item, title


def _csv(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        rows = csv.reader(lines, strict=True)
        names = next(rows, [])
        _require_columns(names, f"{path}:1")
        item, title = (names.index(name) for name in _COLUMNS)
        while True:
            place = rows.line_num + 1
            try:
                row = next(rows, None)
            except (csv.Error, UnicodeDecodeError) as error:
                raise DataError(f"{path}:{place}: no row of a CSV file in UTF-8", _EXPECTED) from error
            if row is None:
                return
            if row and len(row) != len(names):
                raise DataError(
                    f"{path}:{place}: {len(row)} fields", f"expected {len(names)}, as the header has"
                )
            if row:
                yield place, row[item], row[title]


def _require_columns(names: Iterable[str], where: str) -> None:
    missing = [name for name in _COLUMNS if name not in list(names)]
    if missing:
        raise DataError(f"{where}: no column {' and no column '.join(missing)}", _EXPECTED)


def _each_once(rows: Iterator[Row], path: Path, unit: str) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for place, item, title in rows:
        title = (title or "").strip(_TRIMMED) or None
        if item is None or is_blank(item):
            raise DataError(f"{path}: {unit} {place} has no item_id", _EXPECTED)
        if item in found and found[item] != title:
            raise DataError(
                f"{path}: {unit} {place} gives an item another title than a row before it", _EXPECTED
            )
        found[item] = title
    return found


def _without(titles: dict[str, str | None], exclude: Exclude) -> dict[str, str | None]:
    if not any(patterns for _, patterns in exclude):
        return titles
    db = connect()
    try:
        db.execute("CREATE TABLE all_files (item_id VARCHAR, item_title VARCHAR, category VARCHAR)")
        listed = pa.table(
            {"item_id": pa.array(titles, pa.string()), "title": pa.array(titles.values(), pa.string())}
        )
        db.register("listed", listed)
        db.execute("CREATE TABLE products AS FROM listed")
        leave_out(db, exclude)
        return {item: titles[item] for (item,) in db.execute("SELECT item_id FROM products").fetchall()}
    finally:
        db.close()
