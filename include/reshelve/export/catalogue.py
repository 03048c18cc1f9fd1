"""The items a version knows, from the examples stage's `catalogue.parquet`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq

from reshelve.errors import DataError


@dataclass(frozen=True)
class PackagedCatalogue:
    """Items in the order of their index; an item without a title is called by its id."""

    items: list[str]
    titles: list[str]
    events: list[int]
    others: Sequence[Sequence[str]] = ()  # further titles that events had: of every item, or of none

    @property
    def names(self) -> Sequence[Sequence[str]]:
        """Of every item: the titles it was seen with beside its own."""
        return self.others or [()] * len(self.items)

    @classmethod
    def load(cls, path: Path) -> PackagedCatalogue:
        """Read the parquet file. Raises DataError where it has no item or an item twice."""
        table = pq.read_table(path).sort_by("index")
        items = [str(item) for item in table["item_id"].to_pylist()]
        if not items or len(set(items)) != len(items):
            raise DataError(f"{path}: expected at least one item, and each once", f"{len(items)} rows")
        titles = [title or item for item, title in zip(items, table["title"].to_pylist(), strict=True)]
        others = table["names"].to_pylist() if "names" in table.column_names else ()
        return cls(items, titles, [int(n or 0) for n in table["events"].to_pylist()], others)

    def without_counts(self) -> PackagedCatalogue:
        """The same with 0 events of each item."""
        return replace(self, events=[0] * len(self.events))

    def write_jsonl(self, path: Path) -> None:
        """One `{"item", "title", "events"}` per line, in index order."""
        rows = zip(self.items, self.titles, self.events, strict=True)
        with path.open("w", encoding="utf-8") as out:
            for item, title, events in rows:
                out.write(
                    json.dumps({"item": item, "title": title, "events": events}, ensure_ascii=False) + "\n"
                )
