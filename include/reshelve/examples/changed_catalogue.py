"""A catalogue that takes the place of another: which items stay, come, go or are called something else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from reshelve.examples.catalogue import Catalogue


@dataclass(frozen=True)
class CatalogueChange:
    """`items`, `titles` (the id of an untitled one) and `events` of the new one; `were` int64 [C]: each item's place before, -1 of a new one.

    `retitled` bool [C]: whether one that stays is called something else; `removed`: ids that are gone.
    """

    items: Sequence[str]
    titles: Sequence[str]
    events: Sequence[int]
    were: np.ndarray
    retitled: np.ndarray
    removed: Sequence[str]

    @classmethod
    def of(
        cls,
        items: Sequence[str],
        titles: Sequence[str],
        events: Sequence[int],
        products: Mapping[str, str | None],
        *,
        by_demand: bool,
    ) -> CatalogueChange:
        """From the three of the catalogue before to `products`, whole: what is not in it goes. An item that it has without a title keeps its own.

        `by_demand`: in the order of a night's catalogue, most events first; else by item id.
        """
        places = {item: place for place, item in enumerate(items)}
        count = {item: events[places[item]] if item in places else 0 for item in products}
        order = sorted(products, key=lambda item: (-count[item] if by_demand else 0, item))
        were = np.array([places.get(item, -1) for item in order], np.int64)
        called = [
            products[item] or (titles[place] if place >= 0 else item)
            for item, place in zip(order, were, strict=True)
        ]
        retitled = [place >= 0 and title != titles[place] for title, place in zip(called, were, strict=True)]
        gone = [item for item in items if item not in products]
        return cls(order, called, [count[item] for item in order], were, np.array(retitled, bool), gone)

    @property
    def new(self) -> np.ndarray:
        """bool [C]."""
        return self.were < 0

    @property
    def is_one(self) -> bool:
        """Whether anything is otherwise."""
        return bool(self.new.any() or self.retitled.any() or self.removed)

    @cached_property
    def read(self) -> list[str]:
        """What is read of each title: nothing of an untitled item's."""
        return ["" if title == item else title for item, title in zip(self.items, self.titles, strict=True)]

    def catalogue(self) -> Catalogue:
        """As an examples stage writes it; what else was known of items stays with the night that learnt it."""
        return Catalogue(self.items, self.titles, self.events, self.events)

    def counts(self) -> dict[str, int]:
        """How many are `added`, `removed` and `retitled`."""
        return {
            "added": int(self.new.sum()),
            "removed": len(self.removed),
            "retitled": int(self.retitled.sum()),
        }
