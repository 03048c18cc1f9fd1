"""A source's whole history through the data gate, day by day, and what each rule found in it.

    make bench NAME=gate_walk ARGS="--source retail [--files ../shared/data/uci_online_retail/invoices.parquet]"

Lands and validates on a store of its own, oldest day first, so that every day is compared with the weeks before it, as
on its night. Prints verdicts, what each rule broke, and the days on which nothing landed; then one JSON line. With
--home, the reports of the days stay there to be read.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

from own_store import own_store
from rich.console import Console
from rich.table import Table

from reshelve.landing.land import land
from reshelve.logs import configure_logs
from reshelve.raw.sources import load_source, source_path
from reshelve.settings import settings
from reshelve.store.objects import object_store
from reshelve.validation.rules import load_rules
from reshelve.validation.validate import validate_range
from reshelve.validation.verdicts import PartitionVerdict, validated_partitions

_FIRST_DAYS = 5  # of a rule, named


def main() -> None:
    """Walk and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", required=True, help="a file in include/clickstreams/, without .yaml")
    parser.add_argument("--files", type=Path, help="other raw files of the same form")
    parser.add_argument("--home", help="keep the store here (default: thrown away)")
    given = parser.parse_args()
    configure_logs()
    with tempfile.TemporaryDirectory() as scratch:
        if given.files:
            mapping_of_other_files(given.source, given.files.resolve(), Path(scratch))
        with own_store(given.home, "gate"):
            landed = land(given.source)
            began = time.monotonic()
            walked = validate_range(given.source)
            seconds = time.monotonic() - began
            report(given.source, landed, walked, seconds)


def mapping_of_other_files(source: str, files: Path, directory: Path) -> None:
    """The same mapping over other raw files. The data directory is where a mapping may name any file."""
    text = source_path(source).read_text(encoding="utf-8")
    other = text.replace(load_source(source).files, f"${{RESHELVE_DATA}}/{files.name}")
    (directory / f"{source}.yaml").write_text(other, encoding="utf-8")
    os.environ |= {"RESHELVE_CLICKSTREAMS_DIR": str(directory), "RESHELVE_DATA": str(files.parent)}
    settings.cache_clear()


def report(source: str, landed: dict[str, Any], walked: dict[str, Any], seconds: float) -> None:
    """The table and the line."""
    verdicts = validated_partitions(object_store(), source)
    days = Counter(verdict.verdict.value for verdict in verdicts)
    weekdays = Counter(f"{date.fromisoformat(day):%A}" for day in walked["missing"])
    rules = by_rule(verdicts)
    console = Console(width=150)
    console.print(
        f"{source}: {walked['first']} to {walked['last']}, {walked['rows_in']:,} rows on {len(verdicts)} days:"
        f" {dict(days)}; {walked['rows_quarantined']:,} in quarantine; {seconds:,.0f} s"
    )
    console.print(f"nothing landed on {len(walked['missing'])} days: {dict(weekdays)}")
    table = Table("rule", "severity", "days", "rows", "for example")
    for name, found in rules.items():
        table.add_row(
            name, found["severity"], str(found["days"]), f"{found['rows']:,}", ", ".join(found["first"])
        )
    console.print(table)
    line = {
        "bench": "gate_walk", "source": source, "rows": walked["rows_in"], "quarantined": walked["rows_quarantined"],
        "days": dict(days), "missing": dict(weekdays), "undated": landed["undated"], "rules": rules,
        "seconds": round(seconds, 1),
    }  # fmt: skip
    print(json.dumps(line))


def by_rule(verdicts: list[PartitionVerdict]) -> dict[str, dict[str, Any]]:
    """For each rule that a day broke, in the rule file's order: days, rows, and some of the days."""
    found: dict[str, dict[str, Any]] = {}
    for verdict in verdicts:
        for broken in verdict.rules:
            one = found.setdefault(
                broken.rule, {"severity": broken.severity.value, "days": 0, "rows": 0, "first": []}
            )
            one["days"] += 1
            one["rows"] += broken.failed_rows or 0
            if len(one["first"]) < _FIRST_DAYS:
                one["first"].append(str(verdict.partition))
    order = [rule.name for rule in load_rules().rules]
    return dict(sorted(found.items(), key=lambda entry: order.index(entry[0])))


if __name__ == "__main__":
    main()
