"""The data gate beside plain DuckDB SQL of the same rules, and beside Great Expectations on pandas.

    make bench-validate ROWS=10000000 [ARGS="--rounds 3 --peers sql,pandas"]

Generates a day with planted faults, then judges it by the shipped rules in child processes, in turn, so that
other load hits all alike: the gate (verdict and quarantine), the SQL peer (the same rules, counts and files, by
DuckDB alone), and up to a million rows Great Expectations on pandas. Prints CPU and wall seconds, peak memory
and what was found, then one JSON line. CPU seconds contain every import.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from validate_faults import BOTS, DAY, LEAST_ROWS, PARTITION_FAULTS, ROW_FAULTS, Day, generate, truth

from reshelve.clickstream.database import EVENT_TYPES, column, connect
from reshelve.processes import guarded
from reshelve.settings import settings
from reshelve.validation.history import PartitionHistory
from reshelve.validation.profile import Profile, profile_query
from reshelve.validation.rules import load_rules

PANDAS_UP_TO = 1_000_000


def gate(directory: Path, day: Day, engine: str) -> dict[str, Any]:
    """Judge as a night does, without the object store."""
    from reshelve.validation.partition_check import PartitionCheck

    out = directory / "out"
    out.mkdir()
    judgement = PartitionCheck(
        "bench", DAY, load_rules(), directory / "p.duckdb", out, day.products, day.history, engine
    )
    verdict = judgement.judge([day.events])
    return {
        "counts": {rule.rule: rule.failed_rows for rule in verdict.rules},
        "rows": [verdict.rows_in, verdict.rows_good, verdict.rows_quarantined],
    }


def plain_sql(directory: Path, day: Day) -> dict[str, Any]:
    """What a person would write for these rules and this day alone: no verdict, no words, no check of the sum."""
    from reshelve.validation.engine import events_query
    from reshelve.validation.rule_base import KeyedRule
    from reshelve.validation.rules import NotNull

    rules = load_rules()
    aside, told = rules.quarantine, rules.told
    with connect(directory / "p.duckdb") as db:
        db.execute(f"CREATE VIEW events AS {events_query([day.events], {'received_time': ''})}")
        db.execute(f"CREATE VIEW products AS FROM '{day.products}'")
        carried, joins = "e.*", ""
        for rule in (rule for rule in rules.row_rules if isinstance(rule, KeyedRule)):
            db.execute(
                f"CREATE TEMP TABLE {rule.alias} AS SELECT *, true AS hit FROM ({rule.offenders(str(DAY))})"
            )
            carried += f", {rule.alias}.hit AS {rule.alias}_hit"
            joins += f" LEFT JOIN {rule.alias} ON " + " AND ".join(
                f"e.{key} = {rule.alias}.{key}" for key in rule.keys
            )
        masks = [
            " | ".join(
                f"if(coalesce({rule.failing(str(DAY))}, false), {1 << bit}, 0)"
                for bit, rule in enumerate(some)
            )
            for some in (aside, told)
        ]
        db.execute(
            f"CREATE TEMP TABLE marks AS SELECT * FROM (SELECT _row, {masks[0]} AS a, {masks[1]} AS t FROM"
            f" (SELECT {carried} FROM events e {joins})) WHERE a <> 0 OR t <> 0"
        )
        counts = {}
        for mask, some in (("a", aside), ("t", told)):
            sums = ", ".join(f"count(*) FILTER ({mask} & {1 << bit} <> 0)" for bit in range(len(some)))
            counts |= dict(
                zip(
                    [rule.name for rule in some],
                    db.execute(f"SELECT {sums} FROM marks").fetchone(),
                    strict=True,
                )
            )
        columns = ", ".join(f"e.{column(name)}" for name in EVENT_TYPES)
        good = "events e ANTI JOIN (SELECT _row FROM marks WHERE a <> 0) m ON e._row = m._row"
        db.execute(
            f"COPY (SELECT {columns} FROM {good}) TO '{directory}/good.parquet' (FORMAT parquet, COMPRESSION zstd)"
        )
        db.execute(
            f"COPY (SELECT {columns}, a FROM events e JOIN marks m ON e._row = m._row WHERE a <> 0)"
            f" TO '{directory}/bad.parquet' (FORMAT parquet, COMPRESSION zstd)"
        )
        db.execute(profile_query(f"(SELECT e.* FROM {good})")).fetchall()
        db.execute(f"SELECT item_id, count(*) FROM {good} GROUP BY item_id").fetchall()
    tolerated = {rule.name for rule in told if isinstance(rule, NotNull)}
    return {
        "counts": {name: count for name, count in counts.items() if count or name in tolerated},
        "rows": [],
    }


def child(mode: str, rows: int, directory: Path, faulty: bool) -> None:
    """One measured run; its answer is one JSON line."""
    base = directory / ("faulty" if faulty else "clean")
    found = json.loads((base / "day.json").read_text())
    profiles = tuple(Profile.model_validate(one) for one in found["profiles"])
    day = Day(
        base / "events.parquet",
        base / "products.parquet",
        PartitionHistory(profiles, (base / "items.parquet",)),
        {},
    )
    with tempfile.TemporaryDirectory(dir=directory) as made:
        work = Path(made)
        before, started = _cpu(), time.monotonic()
        answer = plain_sql(work, day) if mode == "sql" else gate(work, day, mode)
        answer |= {"wall": time.monotonic() - started, "cpu": _cpu() - before}
        answer["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        if mode != "sql" and faulty:
            answer["rows_found"] = _compare(rows, work / "out" / "quarantine.parquet")
    sys.stdout.write(json.dumps(answer) + "\n")


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _compare(rows: int, quarantine: Path) -> dict[str, Any]:
    """Planted and found pairs of (rule, row)."""
    with connect() as db:
        db.execute(f"CREATE TABLE truth AS {truth(rows)}")
        db.execute(
            f"CREATE TABLE found AS SELECT unnest(broken_rules) AS rule, CAST(grade AS BIGINT) AS row FROM '{quarantine}'"
        )
        planted, found = (
            db.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in ("truth", "found")
        )
        both = db.execute("SELECT count(*) FROM truth JOIN found USING (rule, row)").fetchone()[0]
    return {"planted": planted, "found": found, "precision": both / max(1, found), "recall": both / planted}


def measure(mode: str, rows: int, directory: Path, faulty: bool = True) -> dict[str, Any]:
    """Run one child."""
    arguments = [
        sys.executable,
        __file__,
        "--child",
        mode,
        "--rows",
        str(rows),
        "--directory",
        str(directory),
    ]
    done = subprocess.run(
        guarded([*arguments, *([] if faulty else ["--clean"])]), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{mode}: {done.stderr[-3000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def prepare(rows: int, directory: Path, faulty: bool) -> Day:
    """Generate a day and what the children must know of it."""
    base = directory / ("faulty" if faulty else "clean")
    day = generate(rows, base, faulty=faulty)
    (base / "day.json").write_text(
        json.dumps({"profiles": [one.model_dump(mode="json") for one in day.history.profiles]})
    )
    return day


def judged(runs: list[dict[str, Any]], day: Day) -> dict[str, Any]:
    """Precision and recall over rows and over rules."""
    expected = set(ROW_FAULTS.values()) | set(BOTS) | set(PARTITION_FAULTS)
    found = runs[0]["counts"]
    wrong = {
        name: [found.get(name), count] for name, count in day.planted.items() if found.get(name) != count
    }
    return {
        **runs[0]["rows_found"],
        "rules_planted": len(expected),
        "rules_found": len(expected & set(found)),
        "rules_invented": sorted(set(found) - expected),
        "rules_missed": sorted(expected - set(found)),
        "counts_that_differ": wrong,
    }


def main() -> None:
    """Measure, print a table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", default="sql,pandas", help="sql, pandas, spark")
    parser.add_argument("--child")
    parser.add_argument("--clean", action="store_true")
    parser.add_argument("--directory", type=Path)
    given = parser.parse_args()
    if given.child:
        child(given.child, given.rows, given.directory, not given.clean)
        return
    rows = max(LEAST_ROWS, given.rows)
    peers = [one for one in given.peers.split(",") if one and (one == "sql" or rows <= PANDAS_UP_TO)]
    settings().work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=settings().work, prefix="bench-validate-") as made:
        directory = Path(made)
        day = prepare(rows, directory, True)
        prepare(LEAST_ROWS, directory, False)
        print(
            f"{rows:,} rows, {day.events.stat().st_size / 1e6:,.0f} MB; load {os.getloadavg()[0]:.1f}",
            flush=True,
        )
        invented = measure("duckdb", LEAST_ROWS, directory, faulty=False)["counts"]
        runs: dict[str, list[dict[str, Any]]] = {"duckdb": [], **{peer: [] for peer in peers}}
        for _ in range(given.rounds):
            for mode, done in runs.items():
                done.append(measure(mode, rows, directory))
        report(rows, runs, day, invented)


def report(rows: int, runs: dict[str, list[dict[str, Any]]], day: Day, invented: dict[str, Any]) -> None:
    """The table and the line."""
    numbers = {
        mode: {
            key: round(statistics.median(run[key] for run in done), 2) for key in ("cpu", "wall", "peak_mb")
        }
        for mode, done in runs.items()
    }
    print(f"{'':<10}{'CPU s':>10}{'wall s':>10}{'peak MB':>10}")
    for mode, one in numbers.items():
        print(
            f"{'the gate' if mode == 'duckdb' else mode:<10}{one['cpu']:>10.1f}{one['wall']:>10.1f}{one['peak_mb']:>10,.0f}"
        )
    found = {mode: judged(done, day) for mode, done in runs.items() if mode != "sql"}
    print(json.dumps(found["duckdb"], indent=1))
    line = {
        "bench": "validate",
        "rows": rows,
        "runs": numbers,
        "found": found,
        "invented_on_clean_data": invented,
    }
    if "sql" in numbers:
        line["cpu_ratio_to_sql"] = round(numbers["duckdb"]["cpu"] / numbers["sql"]["cpu"], 3)
        counted, said = runs["sql"][0]["counts"], runs["duckdb"][0]["counts"]
        line["sql_differs"] = {
            name: [counted.get(name), count]
            for name, count in said.items()
            if count is not None and counted.get(name) != count
        }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
