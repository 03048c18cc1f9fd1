"""The page of figures is made from the benchmarks' newest lines and their goals."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from reshelve.settings import PROJECT

GOALS = """
machines: {small: two cores}
runs: {roll: make bench-roll, serve: make bench-serve}
figures:
  - {figure: Failed requests, run: roll, at: [failed], goal: "<= 0", why: 0158-one-reload-one-load}
  - {figure: Rollback, run: roll, at: [seconds], goal: "<= 3"}
  - {figure: Lead, run: serve, at: [lead], goal: "> 0"}
  - {figure: Share, run: serve, at: [lead], over: [whole], show: "{:.0%}"}
"""


def _figures():
    spec = importlib.util.spec_from_file_location("figures", PROJECT / "scripts" / "figures.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


figures = _figures()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Goals, and a run of each benchmark."""
    (tmp_path / "results").mkdir()
    (tmp_path / "goals.yaml").write_text(GOALS)
    roll = {"failed": 2, "seconds": {"first": 1.5, "second": 4.25}}
    serve = {"lead": {"value": 0.2, "low": -0.1, "high": 0.3}, "whole": 0.5}
    for name, line in (("roll", roll), ("serve", serve)):
        run = {"date": "2026-01-05", "machine": "small", "raw": name == "roll", "line": line}
        (tmp_path / "results" / f"{name}.json").write_text(json.dumps(run))
    return tmp_path


def test_each_figure_is_a_row_with_its_goal_and_whether_it_is_met(home: Path) -> None:
    rows = [line for line in figures.page(home).splitlines() if line.startswith("| ")][1:]
    assert rows == [
        "| [Failed requests](../decisions/0158-one-reload-one-load.md) | ≤ 0 | **2** | **no** | 2026-01-05, small | `make bench-roll` |",
        "| Rollback | ≤ 3 | **4.25** | **no** | 2026-01-05, small |  |",
        "| Lead | > 0 | **0.2** (−0.1 to 0.3) | **no** | 2026-01-05, small ° | `make bench-serve` |",
        "| Share |  | **40%** (−20% to 60%) |  | 2026-01-05, small ° |  |",
    ]


def test_a_recorded_run_takes_the_place_of_the_one_before(home: Path) -> None:
    figures.keep("roll", "small", 'a table\n{"failed": 0, "seconds": {"first": 1.0}}\n', home)
    page = figures.page(home)
    assert "| ≤ 0 | **0** | yes |" in page
    assert "| Rollback | ≤ 3 | **1** | yes |" in page


@pytest.mark.parametrize(
    ("name", "machine", "output", "says"),
    [
        ("rolls", "small", "{}", "rolls is not in `runs`"),
        ("roll", "large", "{}", "large is not in `machines`"),
        ("roll", "small", "no line", "no JSON line"),
    ],
)
def test_a_run_that_cannot_be_recorded_says_why(
    home: Path, name: str, machine: str, output: str, says: str
) -> None:
    with pytest.raises(figures.FiguresError, match=says):
        figures.keep(name, machine, output, home)


def test_a_figure_that_its_run_does_not_have_is_named(home: Path) -> None:
    (home / "results" / "roll.json").write_text(
        json.dumps({"date": "2026-01-05", "machine": "small", "raw": True, "line": {"failed": 0}})
    )
    with pytest.raises(figures.FiguresError, match=r"Rollback: no 'seconds' in roll\.json"):
        figures.page(home)
