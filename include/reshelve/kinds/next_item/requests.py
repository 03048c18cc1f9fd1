"""Requests of next_item: the titles of a history, newest first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reshelve.errors import ConfigurationError
from reshelve.kind import Inputs
from reshelve.kinds.catalogue_requests import CatalogueRequests

if TYPE_CHECKING:
    from reshelve.protocol.version_items import Item

_HISTORY = 3
_SEPARATOR = " ; "


class NextItemRequests(CatalogueRequests):
    """`history` [B]."""

    text = "history"
    tokens = 32

    def probe(self, items: list[Item]) -> Inputs:
        wanted = sorted(items, key=lambda item: -item.events)
        return {"history": [_SEPARATOR.join(item.title for item in wanted[:_HISTORY])]}

    def of_titles(self, titles: Sequence[str], place: int, like: str) -> str:
        length = like.count(_SEPARATOR) + 1
        return _SEPARATOR.join(titles[(place * length + number) % len(titles)] for number in range(length))

    def titles_in(self, text: str) -> list[str]:
        return [title.strip() for title in text.split(_SEPARATOR.strip()) if title.strip()]

    def demonstrate(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, str] | None:
        texts = [row["text"] for row in rows if len(row["history_items"]) >= 2]
        return {"history": _SEPARATOR.join(texts[0].split(_SEPARATOR)[:_HISTORY])} if texts else None

    def check_question(self, ranker: str, history: str | None, query: str | None, items: Any) -> None:
        if not (history or "").strip():
            said = "titles of bought items, newest first, separated by ' ; '"
            raise ConfigurationError(f"{ranker} needs --history", said)
        if query or items:
            raise ConfigurationError(
                f"{ranker} ranks its whole catalogue", "it takes --history, not --query or --item"
            )

    def candidates_signature(self) -> str | None:
        return None


FACET = NextItemRequests()
