"""How a night in progress is shown: a live table on a terminal, one line per change elsewhere. All on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.table import Table

from reshelve.platform.airflow_client import Task

_COLOURS = {
    "success": "green",
    "running": "cyan",
    "failed": "red",
    "up_for_retry": "yellow",
    "skipped": "dim",
}
_TELL_SECONDS = 30.0
_QUIET = ("none", "removed", "scheduled", "queued")


class Display(Protocol):
    """Shows the tasks of the night."""

    def update(self, tasks: list[Task], losses: Mapping[str, str]) -> None:
        """The tasks as they are now; `losses` as `current_losses` says them."""
        ...


class Lines:
    """For logs and pipes: a line whenever a task changes its state, and every half minute while one runs."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._seen: dict[tuple[str, str], str] = {}
        self._told = time.monotonic()

    def update(self, tasks: list[Task], losses: Mapping[str, str]) -> None:
        """Print what changed."""
        for task in tasks:
            key = (task.run, task.label)
            if self._seen.get(key) == task.state or task.state in _QUIET:
                continue
            self._seen[key] = task.state
            self._line(task, "")
        running = [task for task in tasks if task.state == "running"]
        if running and time.monotonic() - self._told > _TELL_SECONDS:
            for task in running:
                self._line(task, _loss_of(task, losses))

    def _line(self, task: Task, note: str) -> None:
        self._told = time.monotonic()
        seconds = f" ({task.seconds:.0f}s)" if task.seconds >= 0.5 else ""
        text = (
            f"{time.monotonic() - self._began:5.0f}s  {task.dag:<20} {task.label:<22} {task.state}{seconds}"
        )
        self._console.print(f"{text}  {note}".rstrip(), highlight=False, markup=False, soft_wrap=True)


class LiveTable:
    """For a terminal: a table that is drawn again in place."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._began = time.monotonic()

    def update(self, tasks: list[Task], losses: Mapping[str, str]) -> None:
        """Draw it again."""
        table = Table(
            title=f"The night, {time.monotonic() - self._began:.0f} s", title_justify="left", box=None
        )
        for heading in ("DAG", "stage", "state", "time", ""):
            table.add_column(heading)
        for task in tasks:
            if task.state != "removed":
                colour = _COLOURS.get(task.state, "dim")
                state = f"[{colour}]{task.state.replace('none', 'waiting')}[/]"
                seconds = f"{task.seconds:.0f} s" if task.seconds >= 0.5 else ""
                note = _loss_of(task, losses) if task.state == "running" else ""
                table.add_row(task.dag, task.label, state, seconds, note)
        self._live.update(table)


@contextmanager
def display() -> Iterator[Display]:
    """The display that fits stderr."""
    console = Console(stderr=True)
    if sys.stderr.isatty():
        with Live(console=console, refresh_per_second=4) as live:
            yield LiveTable(live)
    else:
        yield Lines(console)


def current_losses(work: Path, ranker: str, partition: date) -> dict[str, str]:
    """`loss 5.12, step 40 of 250` by the stage that trains now for this night (`train`, `tune`); of trials the newest word."""
    night = work / ranker / partition.isoformat()
    return {
        stage: said
        for stage in ("train", "tune")
        if (said := _said(_newest(night.glob(f"*/{stage}/**/.progress.json"))))
    }


def _loss_of(task: Task, losses: Mapping[str, str]) -> str:
    stage = "tune" if task.id.startswith("tune.evaluate_") else task.id
    return losses.get(stage, "")


def _said(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        point = json.loads(path.read_text())
    except (OSError, ValueError):
        return ""  # it ended between the listing and the look
    _, trial, number = path.parent.name.partition(".trial-")
    parts = [f"trial {number.rpartition('-')[0]}"] if trial else []
    if isinstance(point.get("loss"), int | float):
        parts.append(f"loss {point['loss']:.4g}")
    if "step" in point:
        parts.append(f"step {point['step']}" + (f" of {point['steps']}" if "steps" in point else ""))
    return ", ".join(parts)


def _newest(paths: Iterable[Path]) -> Path | None:
    """The file written last, if that was within the last minute."""
    ages: list[tuple[float, Path]] = []
    for path in paths:
        try:
            ages.append((time.time() - path.stat().st_mtime, path))
        except FileNotFoundError:
            continue  # its stage was just done
    if not ages:
        return None
    age, path = min(ages)
    return path if age < 60 else None
