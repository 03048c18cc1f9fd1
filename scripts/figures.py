"""Write docs/reference/figures.md: one table of the benchmarks' newest results and their goals (benchmarks/goals.yaml).

python scripts/reference.py                                   writes it with the other pages
make bench-roll | python scripts/figures.py roll newer        records a benchmark's JSON line as the newest run of `roll`, on the machine `newer`
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
HEAD = """\
# Benchmark figures
<!-- Made by scripts/figures.py from benchmarks/goals.yaml and benchmarks/results/: `make docs`. -->

The newest run of each benchmark, its goal, and the command to repeat it (shown once for all figures of a run). Intervals are 95 % intervals from resampling whole queries or baskets. Differences are
paired: both rankers answered the same questions. × marks a ratio, the median of interleaved rounds. The linked decisions have the details, earlier runs, and what did not help.

To record a new run, pipe the benchmark into `python scripts/figures.py RUN MACHINE`, with the names in `benchmarks/goals.yaml`. The data of Best Buy and Home Depot may not be redistributed: point
`RESHELVE_DATA` at a copy.
"""

_SIGNS = {">=": "≥", "<=": "≤", ">": ">"}


class FiguresError(ValueError):
    """A figure that its run does not have, or a goal that cannot be read."""


def page(home: Path = BENCHMARKS) -> str:
    """The page, from goals.yaml and results/. Raises FiguresError where a figure names what is not there."""
    goals = yaml.safe_load((home / "goals.yaml").read_text())
    runs = {name: json.loads((home / "results" / f"{name}.json").read_text()) for name in goals["runs"]}
    lines = [HEAD, "| figure | goal | newest | met? | date, machine | command |", "|---|---|---|---|---|---|"]
    before = ""
    for figure in goals["figures"]:
        name = figure["run"]
        command = "" if name == before else f"`{goals['runs'][name]}`"  # said once for the figures of one run
        lines.append(f"{_row(figure, runs[name])} {command} |")
        before = name
    lines += ["", *_notes(runs, goals)]
    return "\n".join(lines)


def keep(name: str, machine: str, output: str, home: Path = BENCHMARKS) -> Path:
    """Keep the last JSON line of a benchmark's output as the newest run. Raises FiguresError."""
    goals = yaml.safe_load((home / "goals.yaml").read_text())
    for kind, given in (("runs", name), ("machines", machine)):
        if given not in goals[kind]:
            raise FiguresError(f"{given} is not in `{kind}` of goals.yaml: {', '.join(goals[kind])}")
    found = [line for line in output.splitlines() if line.startswith("{") and line.endswith("}")]
    if not found:
        raise FiguresError("the output has no JSON line")
    run = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": machine,
        "raw": True,
        "line": json.loads(found[-1]),
    }
    path = home / "results" / f"{name}.json"
    path.write_text(json.dumps(run, indent=1, ensure_ascii=False) + "\n")
    return path


def _row(figure: dict[str, Any], run: dict[str, Any]) -> str:
    """All cells but the last."""
    found = _found(run["line"], figure["at"], figure)
    over = _found(run["line"], figure["over"], figure) if "over" in figure else 1
    low, high = (found.get("low"), found.get("high")) if isinstance(found, dict) else (None, None)
    numbers = found["value"] if isinstance(found, dict) and "value" in found else found
    value = max(numbers.values() if isinstance(numbers, dict) else numbers) if _many(numbers) else numbers
    show = figure.get("show", "{:g}").format
    newest = f"**{show(value / over)}**"
    if low is not None:
        newest += f" ({show(low / over)} to {show(high / over)})"
    goal = figure.get("goal", "")
    met = "" if not goal else "yes" if _met(goal, value / over, low) else "**no**"
    title = f"[{figure['figure']}](../decisions/{figure['why']}.md)" if "why" in figure else figure["figure"]
    mark = "" if run["raw"] else " °"
    return f"| {title} | {_goal(goal, show)} | {newest.replace('-', '−')} | {met} | {run['date']}, {run['machine']}{mark} |"


def _found(line: Any, way: list[str], figure: dict[str, Any]) -> Any:
    for key in way:
        if key not in line:
            raise FiguresError(
                f"{figure['figure']}: no {key!r} in {figure['run']}.json; it has {', '.join(line)}"
            )
        line = line[key]
    return line


def _many(numbers: Any) -> bool:
    return isinstance(numbers, list | dict)


def _parts(goal: str) -> tuple[str, float]:
    parts = re.fullmatch(r"(>=|<=|>) ([\d.]+)", goal)
    if parts is None:
        raise FiguresError(f"goal {goal!r}: expected >=, <= or > and a number")
    return parts[1], float(parts[2])


def _met(goal: str, value: float, low: float | None) -> bool:
    """`>` asks that the whole interval lies above."""
    relation, bound = _parts(goal)
    if relation == ">":
        return (value if low is None else low) > bound
    return value >= bound if relation == ">=" else value <= bound


def _goal(goal: str, show: Any) -> str:
    if not goal:
        return ""
    relation, bound = _parts(goal)
    return f"{_SIGNS[relation]} {show(bound if bound % 1 else int(bound))}"


def _notes(runs: dict[str, Any], goals: dict[str, Any]) -> Iterator[str]:
    yield (
        "**Machines.** " + "; ".join(f"*{name}*: {text}" for name, text in goals["machines"].items()) + ".\n"
    )
    if not all(run["raw"] for run in runs.values()):
        yield "° Transcribed from notes on the run; its JSON line was not kept.\n"
    for name, run in runs.items():
        if run.get("note"):
            yield f"`{name}`: {run['note']}.\n"


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        print(keep(sys.argv[1], sys.argv[2], sys.stdin.read()))
    except FiguresError as error:
        sys.exit(f"figures: {error}")
