"""A ranker file, night by night: train on what came before each day, rank that day's questions, never see the future.

    python benchmarks/bench_quality.py --ranker search --from 2011-09-26 --to 2011-10-09 [--data DIR] [--served]

The directory (RESHELVE_DATA, or --data) and the ranker file are all it needs. Each night runs the product's own stages
on a store of its own, in a process of its own (quality_night); the day itself is the held-out partition, every one of its
questions is asked. Ranked is the float graph of the SavedModel; with --served, the quantized package behind the model
server, and the float graph in a column of its own. Beside a search ranker stand its peers (quality_peer). Prints a table, then one JSON line (quality_report).
With --home, a night that is finished is read back, and one that broke off goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NoReturn

import quality_night
from own_store import own_store
from quality_night import Night, night_file
from quality_report import report, summary
from rich.console import Console

from reshelve.config.ranker import Ranker
from reshelve.errors import EXIT_TRY_AGAIN
from reshelve.lineage.run import Run
from reshelve.logs import configure_logs
from reshelve.pipeline.references import load_ranker
from reshelve.processes import guarded
from reshelve.store.objects import object_store
from reshelve.verbs.options import overrides

_ALL = 1_000_000  # questions: every one of the day


def main() -> None:
    """Run the nights and print what they gave."""
    options = arguments()
    configure_logs()
    if options.data:
        os.environ["RESHELVE_DATA"] = str(Path(options.data).resolve())
    with own_store(options.home, "quality"):
        values = {"gates.max_queries": _ALL, "tuning.trials": 0}
        values |= overrides(options.set)
        ranker = load_ranker(options.ranker, values)
        land_and_validate(ranker, options.first, options.last)
        nights = []
        for name, day, more in asked(ranker, options.first, options.last):
            run = Run.of(ranker.with_values(more), day)
            night = night_of(run, {**values, **more}, options.served)
            if night is not None:
                nights.append((name, night))
                Console(stderr=True).print(
                    f"{name}: {summary(ranker, [night])}", highlight=False, soft_wrap=True
                )
    if not nights:
        raise SystemExit("no partition between the two days")
    report(ranker, nights)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ranker", required=True, help="a file in include/rankers/, without .yaml")
    parser.add_argument(
        "--from", dest="first", type=date.fromisoformat, required=True, help="first day, YYYY-MM-DD"
    )
    parser.add_argument(
        "--to", dest="last", type=date.fromisoformat, required=True, help="last day, included"
    )
    parser.add_argument("--data", help="the directory of raw data (default: RESHELVE_DATA)")
    parser.add_argument(
        "--home", help="keep the store here, so that a second run resumes (default: thrown away)"
    )
    parser.add_argument("--served", action="store_true", help="compress, package and ask the model server")
    parser.add_argument("--set", action="append", help="override a ranker key: training.max_minutes=2")
    return parser.parse_args()


def asked(ranker: Ranker, first: date, last: date) -> list[tuple[str, date, dict[str, Any]]]:
    """Name, day and ranker keys of each night: the days; or the folds of the last day, where queries are held out."""
    if ranker.data.split == "query":
        return [(f"fold {fold}", last, {"data.fold": fold}) for fold in range(ranker.data.folds)]
    return [(str(day), day, {}) for day in days(first, last)]


def days(first: date, last: date) -> list[date]:
    """All of them, both included."""
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]


def land_and_validate(ranker: Ranker, first: date, last: date) -> None:
    """Every day of the first night's window, up to the last day."""
    from reshelve.landing.land import land
    from reshelve.validation.validate import validate_range

    begin = first - timedelta(days=ranker.data.window_days - 1)
    land(ranker.data.source, begin, last)
    validate_range(ranker.data.source, begin, last)


def night_of(run: Run, values: dict[str, Any], served: bool) -> Night | None:
    """One night, in a child process where it is not kept from an earlier run; None where the shop was closed.

    A night that fails is named, and its exit code is this program's: nothing is reported of part of the days.
    """
    if not object_store().exists(f"clickstream/{run.ranker.data.source}/dt={run.partition}/part-0.parquet"):
        return None
    kept = night_file(run, served)
    if not kept.is_file():
        command = [sys.executable, quality_night.__file__, "--ranker", run.ranker.name]
        command += ["--day", str(run.partition), "--file", str(kept), "--values", json.dumps(values)]
        command += ["--served"] if served else []
        # Stdout is the report's alone; a night ends with the program that asked for it.
        child = subprocess.run(guarded(command), stdout=sys.stderr, check=False)
        if child.returncode:
            end_at(run.partition, child.returncode)
    return Night.read(kept)


def end_at(day: date, code: int) -> NoReturn:
    """Say which night failed, and end."""
    killed = code < 0
    how = f"was ended by {signal.Signals(-code).name}" if killed else f"failed with exit code {code}"
    print(f"the night of {day} {how}; with --home the same command goes on from here", file=sys.stderr)
    raise SystemExit(EXIT_TRY_AGAIN if killed else code)


if __name__ == "__main__":
    main()
