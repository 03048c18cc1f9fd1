"""Which steps `bench_scale` takes, in which order, and what is left out after one that failed."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pydantic
from scale_given import Given

from reshelve.processes import guarded

BLEND_ITEMS = 2_000  # of the catalogue on whose questions features are weighed
# By step: what has to be there before, and of which part it is.
NEEDS: dict[str, tuple[tuple[str, ...], str]] = {
    "catalogue": ((), ""),
    "tables": (("catalogue",), "search"),
    "package": (("tables",), "search"),
    "ask": (("package",), "search"),
    "exhaustive": (("tables",), "search"),
    "recall": (("ask", "exhaustive"), "search"),
    "next_item_package": (("catalogue",), "next_item"),
    "next_item_ask": (("next_item_package",), "next_item"),
    "retrieval": (("package", "exhaustive"), "retrieval"),
}
EVENT_NEEDS: dict[str, tuple[str, ...]] = {
    "draw": (),
    "search_examples": ("draw",),
    "impression_examples": ("draw",),
    "rates": ("draw",),
    "searches": ("draw",),
}
Found = dict[str, dict[str, dict[str, Any]]]


class Task(pydantic.BaseModel):
    """One step over so many products, or events."""

    model_config = pydantic.ConfigDict(frozen=True)

    kind: str  # `sizes`, `events`, or `blend`
    size: int
    step: str
    needs: tuple[str, ...] = ()

    def folder(self, given: Given) -> Path:
        """Where the steps of this size leave what the next ones need."""
        return given.work / f"{self.kind}-{self.size}"


def planned(sizes: Sequence[int], events: Sequence[int], parts: Sequence[str]) -> list[Task]:
    """Smaller ones first, so that what can be measured is."""
    tasks = []
    asked = [] if {"search", "retrieval"}.isdisjoint(parts) else ["catalogue", "tables", "blend"]
    wanted = {*parts, ""} | ({"search"} if "retrieval" in parts else set())
    if sizes:
        tasks += [Task(kind="blend", size=BLEND_ITEMS, step=step) for step in asked]
    for size in sorted(sizes):
        tasks += [
            Task(kind="sizes", size=size, step=step, needs=needs)
            for step, (needs, part) in NEEDS.items()
            if part in wanted and (asked or "next_item" in parts)
        ]
    if "events" in parts:
        tasks += [
            Task(kind="events", size=size, step=step, needs=needs)
            for size in sorted(events)
            for step, needs in EVENT_NEEDS.items()
        ]
    return tasks


def begun(given: Given) -> Found:
    """What is found of a run that has measured nothing yet: what it was told."""
    return {"given": {"run": given.model_dump(mode="json", exclude={"work", "data", "peers"})}}


def run(tasks: Sequence[Task], given: Given, command: Sequence[str], seconds: float, found: Found) -> None:
    """Add to `found` what each step found, by kind, size and name; `failed` or `skipped` says why there is nothing."""
    for number, task in enumerate(tasks, 1):
        of_size = found.setdefault(task.kind, {}).setdefault(str(task.size), {})
        missing = [
            need for need in task.needs if of_size.get(need, {"failed": ""}).keys() & {"failed", "skipped"}
        ]
        started = time.monotonic()
        if missing:
            of_size[task.step] = {"skipped": f"needs {missing[0]}"}
        else:
            of_size[task.step] = _child([*command, task.model_dump_json(), given.model_dump_json()], seconds)
        said = of_size[task.step]
        outcome = (
            said.get("failed")
            or said.get("skipped")
            or f"{said['cpu_s']:.1f} CPU-s, {said['peak_mb']:.0f} MB"
        )
        what = f"{task.size:,} {'events' if task.kind == 'events' else 'products'}: {task.step}"
        print(
            f"[{number}/{len(tasks)}] {what}: {outcome} ({time.monotonic() - started:.0f} s)",
            file=sys.stderr, flush=True,
        )  # fmt: skip


def _child(command: Sequence[str], seconds: float) -> dict[str, Any]:
    """The last line that the process prints, or `failed`: why it does not."""
    try:
        done = subprocess.run(guarded(command), capture_output=True, text=True, check=False, timeout=seconds)
    except subprocess.TimeoutExpired:
        return {"failed": f"took longer than {seconds / 60:g} minutes"}
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        ended = f"signal {-done.returncode}" if done.returncode < 0 else f"status {done.returncode}"
        return {"failed": f"{ended}: {said[-1] if said else 'no message'}"[:300]}
    found: dict[str, Any] = pydantic.TypeAdapter(dict[str, Any]).validate_json(done.stdout.splitlines()[-1])
    return found
