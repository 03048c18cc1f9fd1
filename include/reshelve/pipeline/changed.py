"""What is different between two rankers, by dotted path."""

from __future__ import annotations

from typing import Any

from reshelve.config.ranker import Ranker

Changes = dict[str, list[Any]]
"""Dotted path → [the value before, the value after]."""


def changed(before: Ranker, after: Ranker) -> Changes:
    """Where the two differ."""
    old, new = flat(before.model_dump(mode="json")), flat(after.model_dump(mode="json"))
    paths = sorted(old.keys() | new.keys())
    return {path: [old.get(path), new.get(path)] for path in paths if old.get(path) != new.get(path)}


def said(changes: Changes, most: int) -> str:
    """`training.epochs: 1.0 → 2.0, …`; at most so many of them by name."""
    named = [f"{path}: {old} → {new}" for path, (old, new) in list(changes.items())[:most]]
    more = len(changes) - len(named)
    return ", ".join(named) + (f" and {more} more" if more > 0 else "")


def flat(document: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Dotted path → value of every leaf."""
    found: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, dict) and f"{path}{key}" != "tuning.space":
            found |= flat(value, f"{path}{key}.")
        else:
            found[f"{path}{key}"] = value
    return found
