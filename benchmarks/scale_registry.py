"""The steps of `bench_scale` by name; each imports what it needs when it is asked for, for memory is measured."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import scale_steps
from scale_given import Given
from scale_steps import Step

Make = Callable[[Path, Given], Step]

OF_CATALOGUE: dict[str, Make] = {
    "tables": scale_steps.tables,
    "blend": scale_steps.blend,
    "package": partial(scale_steps.package, kind="search"),
    "ask": partial(scale_steps.ask, kind="search"),
    "exhaustive": scale_steps.exhaustive,
    "recall": scale_steps.recall,
    "next_item_package": partial(scale_steps.package, kind="next_item"),
    "next_item_ask": partial(scale_steps.ask, kind="next_item"),
}
# Step → the events that it reads, or the part of `bench_events` that it is.
OF_EVENTS = {
    "search_examples": "searched", "impression_examples": "shown", "rates": "rates", "searches": "searches"
}  # fmt: skip


def made(name: str, here: Path, given: Given, size: int) -> Step:
    """A step, ready to run. Raises KeyError where there is none of that name."""
    if name == "draw" or name in OF_EVENTS:
        import scale_events

        if name == "draw":
            return scale_events.draw(here, given, size)
        make = scale_events.examples if name.endswith("_examples") else scale_events.counted
        return make(here, given, OF_EVENTS[name])
    if name == "retrieval":
        from scale_retrieval import retrieval

        return retrieval(here, given)
    return (
        scale_steps.catalogue(here, given, size) if name == "catalogue" else OF_CATALOGUE[name](here, given)
    )
