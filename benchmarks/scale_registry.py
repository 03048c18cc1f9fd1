"""The steps of `bench_scale` by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import scale_steps
from scale_given import Given

STEPS: dict[str, Callable[[Path, Given, int], scale_steps.Step]] = {
    "catalogue": scale_steps.catalogue,
    "tables": lambda here, given, _: scale_steps.tables(here, given),
    "blend": lambda here, given, _: scale_steps.blend(here, given),
    "package": lambda here, given, _: scale_steps.package(here, given, "search"),
    "ask": lambda here, given, _: scale_steps.ask(here, given, "search"),
    "exhaustive": lambda here, given, _: scale_steps.exhaustive(here, given),
    "recall": lambda here, given, _: scale_steps.recall(here, given),
    "next_item_package": lambda here, given, _: scale_steps.package(here, given, "next_item"),
    "next_item_ask": lambda here, given, _: scale_steps.ask(here, given, "next_item"),
}
