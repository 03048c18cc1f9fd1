"""The steps of `bench_scale` by name; each imports what it needs when it is asked for, for memory is measured."""

from __future__ import annotations

from pathlib import Path

from scale_given import Given
from scale_steps import Step, ask, blend, catalogue, exhaustive, package, recall, tables


def made(name: str, here: Path, given: Given, size: int) -> Step:
    """A step, ready to run. Raises KeyError where there is none of that name."""
    if name in ("draw", "search_examples", "impression_examples", "rates", "searches"):
        return _of_events(name, here, given, size)
    if name == "retrieval":
        from scale_retrieval import retrieval

        return retrieval(here, given)
    if name == "catalogue":
        return catalogue(here, given, size)
    of_version = {
        "package": (package, "search"), "ask": (ask, "search"),
        "next_item_package": (package, "next_item"), "next_item_ask": (ask, "next_item"),
    }  # fmt: skip
    if name in of_version:
        make, kind = of_version[name]
        return make(here, given, kind)
    return {"tables": tables, "blend": blend, "exhaustive": exhaustive, "recall": recall}[name](here, given)


def _of_events(name: str, here: Path, given: Given, rows: int) -> Step:
    import scale_events

    if name == "draw":
        return scale_events.draw(here, given, rows)
    of_stage = {"search_examples": "searched", "impression_examples": "shown"}
    if name in of_stage:
        return scale_events.examples(here, given, of_stage[name])
    return scale_events.counted(here, given, name)
