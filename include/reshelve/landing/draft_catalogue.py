"""The product list in a drafted mapping file: which of its columns holds the ids, and which the titles."""

from __future__ import annotations

import json
from collections.abc import Iterator

from reshelve.clickstream.database import column
from reshelve.errors import DataError
from reshelve.landing.column_roles import listed, roles, same_ids, unused
from reshelve.landing.draft_text import not_used, reading, seen
from reshelve.landing.look import Look
from reshelve.raw.column_kinds import Column

_MOSTLY = 0.5  # of the ids
_KEYS = {"item_id": "item_id", "title": "item_title"}
_ONCE = 0.98  # of the rows have a value of their own


class CatalogueDraft:
    """What is known of a product list beside the events; `item` is the events' column that has its ids."""

    def __init__(self, products: Look, events: Look, found: dict[str, Column]) -> None:
        self._products = products
        self.guessed: list[str] = []
        self._found = roles(products.columns)
        self.item = found.get("item_id")
        self._by_ids(events, found)
        self._by_values()

    @property
    def problem(self) -> DataError | None:
        """Why the product list cannot be read as one."""
        if not (missing := self._missing):
            return None
        columns = ", ".join(one.name for one in self._products.columns)
        return DataError(
            f"{self._products.files[0]}: no column looks like {' or '.join(missing)}", f"columns: {columns}"
        )

    @property
    def _missing(self) -> list[str]:
        return [role for role in _KEYS.values() if role not in self._found]

    def _by_ids(self, events: Look, found: dict[str, Column]) -> None:
        """Where names do not tell which columns hold the ids of items, values may: both files have them."""
        item, product = self.item, self._found.get("item_id")
        if item is None or product is None or listed(item, product) < _MOSTLY:
            columns = [item] if item else unused(events.columns, found)
            if same := same_ids(columns, self._products.columns):
                self._found = {role: one for role, one in self._found.items() if one != same[1]}
                self.item, self._found["item_id"] = same

    def _by_values(self) -> None:
        """The ids are what each row has one of, and the titles the text that says most."""
        free = unused(self._products.columns, self._found)
        ids = [one for one in free if not one.is_prose and one.known and one.distinct >= _ONCE * one.rows]
        ids = [one for one in ids if one.kind.name in ("text", "integer")]
        if "item_id" not in self._found and len(ids) == 1:
            self._found["item_id"] = ids[0]
            self.guessed.append(f"ids of the product list: taken from {ids[0].name} by its values: a guess")
        texts = [one for one in unused(self._products.columns, self._found) if one.kind.name == "text"]
        if "item_title" not in self._found and texts:
            self._found["item_title"] = title = max(texts, key=lambda one: (one.is_prose, one.distinct))
            self.guessed.append(f"titles of the product list: taken from {title.name}")

    def lines(self) -> Iterator[str]:
        """The lines of the mapping file; comments where something is missing."""
        mark = "# " if self._missing else ""
        yield f"{mark}catalogue:"
        yield f"{mark}  files: {json.dumps(self._products.pattern, ensure_ascii=False)}"
        yield from (mark + line for line in reading(self._products, "  "))
        for key, role in _KEYS.items():
            if one := self._found.get(role):
                yield f"{mark}  {key}: {json.dumps(column(one.name), ensure_ascii=False)}  # {seen(one, True)}"
            else:
                yield f"{mark}  {key}:  # write the column"
        if self._missing:
            yield from (not_used(one) for one in unused(self._products.columns, self._found))

    def doubts(self) -> Iterator[str]:
        """What was not understood."""
        yield from self.guessed
        if self._missing:
            yield f"product list: no column looks like {' or '.join(self._missing)}"
        product = self._found.get("item_id")
        if self.item and product and (share := listed(self.item, product)) < _MOSTLY:
            yield f"{self.item.name}: {share:.0%} of its values are in the product list ({product.name})"
