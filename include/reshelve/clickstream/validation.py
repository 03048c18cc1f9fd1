"""Validate a partition: Great Expectations judges, bad rows go to quarantine, `verdict.json` is written last.

The same landed objects under the same rules and code are not judged again. A stop verdict leaves the
landed data as it is and no `good.parquet`, so nothing downstream can read what nobody may use.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from reshelve.clickstream import quarantine, report, wording
from reshelve.clickstream.database import database
from reshelve.clickstream.events import landed_prefix, validated_prefix
from reshelve.clickstream.landed import UnreadableError, open_landed, read_whole
from reshelve.clickstream.rules import (
    PartitionRule,
    QuarantinedShare,
    RuleFile,
    Severity,
    load_rules,
)
from reshelve.clickstream.sources import load_source
from reshelve.clickstream.verdicts import (
    BrokenRule,
    Decision,
    Verdict,
    days_between,
    landed_partitions,
    read_verdict,
    verdict_key,
)
from reshelve.errors import ConfigurationError, DataError
from reshelve.logs import logger
from reshelve.settings import settings
from reshelve.store.objects import ObjectStore, object_store

if TYPE_CHECKING:
    from reshelve.clickstream.expectations import Broken


def validate(source: str, partition: date) -> dict[str, Any]:
    """Judge one landed partition; returns its `Verdict` as JSON, and `reused` where it was judged before.

    verdict `missing` where nothing has landed. Data faults of any kind end in a verdict; a wrong mapping or
    rule file raises ConfigurationError, a store that is away TryAgainError.
    """
    return _validate(object_store(), source, partition, load_rules(load_source(source).rules))


def validate_range(source: str, first: date | None = None, last: date | None = None) -> dict[str, Any]:
    """Judge every day from `first` to `last` (default: all that have landed) in one process.

    A broken day in a long history must not block the others, so `verdict` is pass while any day is usable;
    it is stop where no day that landed is, missing where none landed. `verdicts` has each day's own.
    """
    store = object_store()
    rules = load_rules(load_source(source).rules)
    landed = landed_partitions(store, source)
    first, last = first or min(landed, default=None), last or max(landed, default=None)
    if first is None or last is None:
        first = last = first or last
    if first and last and first > last:
        raise ConfigurationError(f"the first day {first} is after the last {last}")
    days = days_between(first, last) if first and last else []
    results = []
    log = logger(stage="validate", source=source)
    for number, day in enumerate(days, 1):
        result = _validate(store, source, day, rules)
        results.append(result)
        log.info("validated", partition=str(day), verdict=result["verdict"], done=f"{number}/{len(days)}",
                 rows=result["rows_in"], quarantined=result["rows_quarantined"], reused=result["reused"])  # fmt: skip
    return _range_result(source, results)


def _range_result(source: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    by_verdict = {decision: [r for r in results if r["verdict"] == decision] for decision in Decision}
    usable = by_verdict[Decision.PASS] + by_verdict[Decision.WARN]
    stopped = by_verdict[Decision.STOP]
    verdict = Decision.PASS if usable else Decision.STOP if stopped else Decision.MISSING
    total = {key: sum(r[key] for r in results) for key in ("rows_in", "rows_good", "rows_quarantined")}
    headline = (
        f"{source}: {len(usable)} of {len(results)} days usable"
        f" ({len(by_verdict[Decision.WARN])} with a warning), {len(stopped)} stopped,"
        f" {len(by_verdict[Decision.MISSING])} missing;"
        f" {total['rows_in']:,} rows, {total['rows_quarantined']:,} in quarantine"
    )
    if stopped:
        headline += f". First stopped: {stopped[0]['headline']}"
    keys = (
        "partition",
        "verdict",
        "headline",
        "rows_in",
        "rows_good",
        "rows_quarantined",
        "digest",
        "reused",
    )
    return {
        "verdict": verdict.value,
        "headline": headline,
        "source": source,
        "first": results[0]["partition"] if results else None,
        "last": results[-1]["partition"] if results else None,
        "partitions": len(results) - len(by_verdict[Decision.MISSING]),
        **total,
        "missing": [r["partition"] for r in by_verdict[Decision.MISSING]],
        "verdicts": [{key: r[key] for key in keys} for r in results if r["verdict"] != Decision.MISSING],
    }


def _validate(store: ObjectStore, source: str, partition: date, rules: RuleFile) -> dict[str, Any]:
    prefix = landed_prefix(source, partition)
    objects = [(key, size) for key, size in store.list(prefix) if key.endswith(".parquet")]
    if not objects:
        headline = f"{source} {partition}: nothing has landed"
        missing = Verdict(verdict=Decision.MISSING, headline=headline, source=source, partition=partition)
        return {**missing.result(), "reused": False}
    landed = ";".join(f"{key},{size},{store.etag(key)}" for key, size in objects)
    digest = hashlib.sha256(f"{landed}|{rules.digest()}|{_code_digest()}".encode()).hexdigest()[:12]
    stored = read_verdict(store, source, partition)
    if stored is not None and stored.digest == digest:
        return {**stored.result(), "reused": True}
    started = time.monotonic()
    settings().work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=settings().work, prefix="validate-") as scratch:
        files = store.download_directory(prefix, Path(scratch) / "landed")
        files = [path for path in files if path.suffix == ".parquet"]
        out = Path(scratch) / "validated"
        out.mkdir()
        judged = _Judgement(source, partition, rules, Path(scratch) / "partition.duckdb", out).judge(files)
        report_uri = store.uri(validated_prefix(source, partition) + "report.html")
        verdict = judged.model_copy(update={"digest": digest, "report_uri": report_uri})
        _replace(store, verdict, out)
    logger(stage="validate", source=source, partition=str(partition)).debug(
        "judged", verdict=verdict.verdict.value, seconds=round(time.monotonic() - started, 2)
    )
    return {**verdict.result(), "reused": False}


def _replace(store: ObjectStore, verdict: Verdict, directory: Path) -> None:
    """Withdraw the old verdict, replace the files, then publish the new verdict: readers believe only a verdict."""
    prefix = validated_prefix(verdict.source, verdict.partition)
    store.delete([verdict_key(verdict.source, verdict.partition)])
    store.delete([key for key, _ in store.list(prefix)])
    store.upload_directory(directory, prefix)
    store.put_json(verdict_key(verdict.source, verdict.partition), verdict.result())


@lru_cache(maxsize=1)
def _code_digest() -> str:
    """12 hex digits over the code that judges, so that a mended rule engine judges again."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


@dataclass
class _Judgement:
    """One partition before its rules."""

    source: str
    partition: date
    rules: RuleFile
    file: Path
    out: Path

    @property
    def day(self) -> str:
        """The partition as text."""
        return self.partition.isoformat()

    def judge(self, files: list[Path]) -> Verdict:
        """The verdict without its digest; the files of the partition's validated prefix are in `out`."""
        with database(self.file) as db:
            try:
                return self._judge(db, files, open_landed(db, files))
            except UnreadableError as fault:
                rule = self.rules.only(fault.rule)
                broken = BrokenRule(
                    rule=rule.name, severity=rule.severity, failed_rows=None, message=str(fault)
                )
                return self._stop(db, 0, [broken], marked=False)

    def _judge(self, db: duckdb.DuckDBPyConnection, files: list[Path], columns: dict[str, str]) -> Verdict:
        from reshelve.clickstream import expectations

        whole = [
            r
            for r in self.rules.rules
            if isinstance(r, PartitionRule) and not isinstance(r, QuarantinedShare)
        ]
        rest = [r for r in self.rules.rules if r not in whole]
        with expectations.checker(self.file, self.day) as checker:
            broken = [self._explain(db, found, columns) for found in checker.broken("landed", whole, columns)]
            rows_in = wording.count(db, "landed")
            if any(found.severity is Severity.STOP for found in broken):
                return self._stop(db, rows_in, broken, marked=False)
            self._mark(db, files)
            if rows_in == 0:  # allowed by the rules; a share of nothing is no number
                rest = [r for r in rest if not isinstance(r, QuarantinedShare)]
            found = checker.broken("events", rest)
            self._agree(db, found)
            broken += [self._explain(db, one, columns) for one in found]
        if any(found.severity is Severity.STOP for found in broken):
            return self._stop(db, rows_in, broken, marked=True)
        split = quarantine.split(db, self.rules.quarantine, self.out)
        decision = (
            Decision.WARN if any(found.severity is Severity.WARN for found in broken) else Decision.PASS
        )
        verdict = Verdict(
            verdict=decision,
            headline=wording.headline(self.source, self.partition, split, broken),
            source=self.source,
            partition=self.partition,
            rows_in=split.rows_in,
            rows_good=split.rows_good,
            rows_quarantined=split.rows_quarantined,
            rules=tuple(broken),
        )
        self._report(db, verdict, marked=True)
        return verdict

    def _mark(self, db: duckdb.DuckDBPyConnection, files: list[Path]) -> None:
        """Compute the masks. Raises UnreadableError for a damaged file, ConfigurationError for a rule that fails on data."""
        try:
            quarantine.mark(db, self.rules.quarantine, self.day)
        except duckdb.Error as error:
            read_whole(db, files)
            raise ConfigurationError(
                f"{self.source} {self.day}: a quarantine rule fails on the data", str(error)
            ) from error

    def _agree(self, db: duckdb.DuckDBPyConnection, found: Sequence[Broken]) -> None:
        """Two ways of counting must agree: what Great Expectations says fails, and what is set aside."""
        said = {one.rule.name: one.failed_rows for one in found if one.rule.severity is Severity.QUARANTINE}
        aside = {name: count for name, count in quarantine.counts(db, self.rules.quarantine).items() if count}
        if said != aside:
            raise DataError(
                f"{self.source} {self.day}: Great Expectations and the quarantine count differently",
                f"expectations: {said}; quarantine: {aside}; nothing was written",
            )

    def _explain(self, db: duckdb.DuckDBPyConnection, found: Broken, columns: dict[str, str]) -> BrokenRule:
        message, failed = wording.explain(db, found.rule, found.failed_rows, columns)
        return BrokenRule(
            rule=found.rule.name, severity=found.rule.severity, failed_rows=failed, message=message
        )

    def _stop(
        self, db: duckdb.DuckDBPyConnection, rows_in: int, broken: list[BrokenRule], marked: bool
    ) -> Verdict:
        if marked:
            quarantine.hold_back(db, self.rules.quarantine, self.out)
        first = next(found for found in broken if found.severity is Severity.STOP)
        verdict = Verdict(
            verdict=Decision.STOP,
            headline=f"{self.source} {self.day} must not be used: {first.message}",
            source=self.source,
            partition=self.partition,
            rows_in=rows_in,
            rows_quarantined=rows_in,
            rules=tuple(broken),
        )
        self._report(db, verdict, marked)
        return verdict

    def _report(self, db: duckdb.DuckDBPyConnection, verdict: Verdict, marked: bool) -> None:
        names = {found.rule for found in verdict.rules}
        broken = [r for r in self.rules.row_rules if r.name in names]
        examples = {r.name: report.examples(db, r, self.day) for r in broken} if marked else {}
        held = [r.description for r in self.rules.rules if r.name not in names] if marked else []
        page = report.render(verdict.result(), examples, held)
        (self.out / "report.html").write_text(page, encoding="utf-8")
