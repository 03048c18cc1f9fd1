"""Choices that depend on what is chosen from, never on the order in which it is met."""

from __future__ import annotations

import hashlib
import heapq
from typing import Any, Generic, TypeVar

ItemT = TypeVar("ItemT")


def stable_hash(*parts: object) -> int:
    """64 bits over the parts' text: the same in every process, unlike `hash`."""
    text = "\0".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


class Greatest(Generic[ItemT]):
    """The `limit` items with the greatest keys, in bounded memory. Keys must differ."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._heap: list[tuple[Any, ItemT]] = []

    def add(self, key: Any, item: ItemT) -> None:
        """Keep `item` while its key is among the greatest."""
        if len(self._heap) < self._limit:
            heapq.heappush(self._heap, (key, item))
        elif self._heap and key > self._heap[0][0]:
            heapq.heapreplace(self._heap, (key, item))

    def items(self) -> list[ItemT]:
        """What was kept, least key first."""
        return [item for _, item in sorted(self._heap, key=lambda entry: entry[0])]
