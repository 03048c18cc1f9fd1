"""What the kinds that read a query ask of whoever puts a question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reshelve.errors import ConfigurationError


class ReadsQuery:
    """A question is `query`, and `history` is none."""

    def demonstrate(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, str] | None:
        return {"query": rows[0]["text"]} if rows else None

    def check_question(self, ranker: str, history: str | None, query: str | None, items: Any) -> None:
        if not (query or "").strip():
            raise ConfigurationError(f"{ranker} needs --query", "what the customer typed")
        if history:
            raise ConfigurationError(f"{ranker} ranks items for a query", "it takes --query, not --history")
