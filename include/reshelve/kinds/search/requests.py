"""Requests of search: a query, and where the caller wants to know of certain items, those."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reshelve.kind import Inputs
from reshelve.kinds.catalogue_requests import CatalogueRequests
from reshelve.kinds.query_requests import ReadsQuery

if TYPE_CHECKING:
    from reshelve.protocol.version_items import Item


class SearchRequests(ReadsQuery, CatalogueRequests):
    """`query` [B]."""

    text = "query"
    tokens = 16

    def probe(self, items: list[Item]) -> Inputs:
        return {"query": [max(items, key=lambda item: item.events).title]}

    def candidates_signature(self) -> str | None:
        return "score"


FACET = SearchRequests()
