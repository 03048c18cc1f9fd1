"""One partition before its rules: what is landed is opened, marked, measured, decided upon and put in two files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from reshelve.clickstream.database import database
from reshelve.clickstream.faults import reason
from reshelve.errors import ConfigurationError, DataError
from reshelve.logs import logger
from reshelve.validation import quarantine, report, wording
from reshelve.validation.engine import RECEIVED, DuckDBEngine, Engine, EngineError
from reshelve.validation.engines import another_engine
from reshelve.validation.history import ITEMS, PROFILE, PartitionHistory
from reshelve.validation.keyed_rules import ClickWithoutImpression, InCatalogue
from reshelve.validation.landed import Landed, UnreadableError, open_landed, read_whole
from reshelve.validation.measured_rules import MeasuredRule, PartitionFacts
from reshelve.validation.profile import Profile, histograms, profile_query
from reshelve.validation.row_rules import Late
from reshelve.validation.rule_base import Range, RowRule, Severity
from reshelve.validation.rules import Columns, RowCount, Rule, RuleFile
from reshelve.validation.verdicts import BrokenRule, PartitionDecision, PartitionVerdict

_GOOD = "(SELECT e.* FROM events AS e ANTI JOIN (SELECT _row FROM marks WHERE _aside <> 0) AS m ON e._row = m._row)"
_MANY_ROWS = 1_000_000  # some seconds
_ITEMS = pa.schema([pa.field("item_id", pa.string()), pa.field("events", pa.int64())])


@dataclass
class PartitionCheck:
    """A partition, its rules, and the directory that its validated files are written to."""

    source: str
    partition: date
    rules: RuleFile
    file: Path  # the DuckDB database of this judgement
    out: Path
    products: Path | None = None
    history: PartitionHistory = field(default_factory=PartitionHistory)
    engine: str = "duckdb"  # or spark, pandas
    _results: list[Any] = field(default_factory=list, init=False)  # Great Expectations', for its Data Docs

    @property
    def day(self) -> str:
        """The partition as text."""
        return self.partition.isoformat()

    def judge(self, files: Sequence[Path]) -> PartitionVerdict:
        """The verdict without its digest; the files of the partition's validated prefix are in `out`."""
        with database(self.file) as db:
            try:
                landed = open_landed(db, files, self.file.parent)
                return self._judge(db, landed)
            except UnreadableError as fault:
                rule = self.rules.only(fault.rule)
                broken = BrokenRule(
                    rule=rule.name, severity=rule.severity, failed_rows=None, message=str(fault)
                )
                return self._stop(0, [broken])

    def _judge(self, db: duckdb.DuckDBPyConnection, landed: Landed) -> PartitionVerdict:
        from reshelve.validation import expectations

        whole = [rule for rule in self.rules.rules if isinstance(rule, Columns | RowCount)]
        engine = DuckDBEngine(db, self.file, landed.files, self.products)
        try:
            found = expectations.ask(engine.asset(expectations.context(), "landed"), whole, landed.columns)
            self._results += found.results
            broken = [self._explain(one.rule, None, landed) for one in found.broken]
            if any(one.severity is Severity.STOP for one in broken):
                return self._stop(landed.rows, broken)
            engine.open_events(landed.columns)
            with another_engine(self.engine, engine, landed) as chosen:
                return self._whole_rows(engine, chosen, landed, broken)
        finally:
            engine.close()

    def _whole_rows(
        self, files: DuckDBEngine, engine: Engine, landed: Landed, broken: list[BrokenRule]
    ) -> PartitionVerdict:
        """`_rows`; where anything fails, see first whether a file is damaged, which shows itself in many ways.

        Raises UnreadableError for a damaged file, ConfigurationError for a rule that fails on the data.
        """
        try:
            return self._rows(files, engine, landed, broken)
        except (ConfigurationError, EngineError, duckdb.Error, pa.ArrowException) as error:
            read_whole(files.db, landed.files)
            if isinstance(error, ConfigurationError):
                raise
            raise ConfigurationError(
                f"{self.source} {self.day}: a rule fails on the data", reason(error, bound=True)
            ) from error

    def _rows(
        self, files: DuckDBEngine, engine: Engine, landed: Landed, broken: list[BrokenRule]
    ) -> PartitionVerdict:
        """The rules about rows and about what they are like as a whole.

        `engine` finds and decides; `files` writes, so that the bytes are the same whoever found.
        """
        asked = [rule for rule in self.rules.row_rules if self._applies(engine, landed, rule)]
        self._say("marking the rows that break a rule", landed)
        quarantine.mark(engine, self.rules, asked, self.day)
        if engine.apart:
            files.take("marks", engine.table("SELECT _row, _aside, _told FROM marks"))
        failed = quarantine.counts(engine, self.rules)
        self._say("measuring the good rows", landed)
        facts = self._facts(engine, landed)
        measures = self._measures(asked, failed, facts)
        self._say("asking Great Expectations", landed)
        for found in self._decide(engine, asked, failed, measures):
            broken.append(self._explain(found, failed.get(found.name), landed, measures.get(found.name)))
        unasked = [
            rule.name
            for rule in self.rules.rules
            if isinstance(rule, RowRule | MeasuredRule) and rule not in asked and rule.name not in measures
        ]
        stopped = any(one.severity is Severity.STOP for one in broken)
        split = quarantine.split(files, self.rules, self.out, landed.rows, good=not stopped)
        told = {
            "unasked": tuple(unasked),
            "compared_with": len(self.history.profiles),
            "engine": engine.name,
            "masked": split.masked,
        }
        if stopped:
            return self._stop(landed.rows, broken, files, **told)
        (self.out / PROFILE).write_text(facts.profile.model_dump_json(), encoding="utf-8")
        warned = any(one.severity is Severity.WARN for one in broken)
        verdict = PartitionVerdict(
            verdict=PartitionDecision.WARN if warned else PartitionDecision.PASS,
            headline=wording.headline(self.source, self.partition, split, broken),
            source=self.source,
            partition=self.partition,
            rows_in=split.rows_in,
            rows_good=split.rows_good,
            rows_quarantined=split.rows_quarantined,
            rules=tuple(broken),
            **told,
        )
        self._report(verdict, files)
        return verdict

    def _say(self, step: str, landed: Landed) -> None:
        """One step of a partition that takes long; the last one, writing, counts its rows."""
        if landed.rows >= _MANY_ROWS:
            log = logger(stage="validate", source=self.source, partition=self.day)
            log.info(step, rows=landed.rows)

    def _applies(self, engine: Engine, landed: Landed, rule: RowRule) -> bool:
        """Whether the partition has what a rule asks about."""
        match rule:
            case Late():
                return RECEIVED in landed.columns
            case InCatalogue():
                return self.products is not None
            case ClickWithoutImpression():
                return bool(engine.rows("SELECT 1 FROM events WHERE event_type = 'impression' LIMIT 1"))
        return True

    def _facts(self, engine: Engine, landed: Landed) -> PartitionFacts:
        """Count the good rows once, for this day's rules and for the days to come."""
        (aside,) = engine.rows("SELECT count(*) FROM marks WHERE _aside <> 0")[0]
        good = _GOOD if aside else "events"
        profile = Profile(
            partition=self.partition,
            rows=landed.rows,
            good=landed.rows - int(aside),
            histograms=histograms(engine.rows(profile_query(good))),
        )
        items = f"SELECT item_id, count(*) AS events FROM {good} AS good WHERE item_id IS NOT NULL GROUP BY item_id"
        path = self.out / ITEMS
        with pq.ParquetWriter(path, _ITEMS, compression="zstd") as writer:
            writer.write_table(engine.table(f"{items} ORDER BY item_id").cast(_ITEMS))
        item_rows, new_rows = self.history.new_rows(path)
        return PartitionFacts(profile, int(aside), self.history.profiles, item_rows, new_rows, landed.extra)

    def _measures(
        self, asked: Sequence[RowRule], failed: dict[str, int], facts: PartitionFacts
    ) -> dict[str, Range]:
        """The numbers Great Expectations is asked about instead of the rows."""
        from reshelve.validation import expectations

        found = {
            rule.name: expectations.of_rows(rule, failed[rule.name], facts.profile.rows)
            for rule in asked
            if not isinstance(rule, expectations.NATIVE)
        }
        for rule in self.rules.rules:
            measure = rule.measured(facts) if isinstance(rule, MeasuredRule) else None
            if measure is not None:
                found[rule.name] = measure
        return found

    def _decide(
        self, engine: Engine, asked: Sequence[RowRule], failed: dict[str, int], measures: dict[str, Range]
    ) -> list[Rule]:
        """The rules that Great Expectations finds broken, in the order of the rule file."""
        from reshelve.validation import expectations

        context = expectations.context()
        native = [rule for rule in asked if isinstance(rule, expectations.NATIVE)]
        answers = [expectations.ask(engine.asset(context, "events"), native)] if native else []
        said = {one.rule.name: one.failed_rows for answer in answers for one in answer.broken}
        counted = {rule.name: failed[rule.name] for rule in native if rule.name in said or not rule.tolerate}
        if {name: count for name, count in counted.items() if count} != said:
            raise DataError(
                f"{self.source} {self.day}: Great Expectations and the quarantine disagree",
                f"expectations: {said}; quarantine: {counted}; nothing was written",
            )
        columns = ", ".join(
            f"CAST({measure.value!r} AS DOUBLE) AS {name}" for name, measure in measures.items()
        )
        if columns:
            engine.keep("measures", f"SELECT {columns}")
            about = [rule for rule in self.rules.rules if rule.name in measures]
            answers.append(expectations.ask(engine.asset(context, "measures"), about, measures=measures))
        self._results += [result for answer in answers for result in answer.results]
        names = {one.rule.name for answer in answers for one in answer.broken}
        return [rule for rule in self.rules.rules if rule.name in names]

    def _explain(
        self, rule: Rule, failed: int | None, landed: Landed, measure: Range | None = None
    ) -> BrokenRule:
        message = wording.explain(rule, failed, landed.rows, landed.columns, measure)
        return BrokenRule(rule=rule.name, severity=rule.severity, failed_rows=failed, message=message)

    def _stop(
        self, rows_in: int, broken: list[BrokenRule], asked: Engine | None = None, **told: Any
    ) -> PartitionVerdict:
        first = next(found for found in broken if found.severity is Severity.STOP)
        verdict = PartitionVerdict(
            verdict=PartitionDecision.STOP,
            headline=f"{self.source} {self.day} must not be used: {first.message}",
            source=self.source,
            partition=self.partition,
            rows_in=rows_in,
            rows_quarantined=rows_in,
            rules=tuple(broken),
            **told,
        )
        (self.out / ITEMS).unlink(missing_ok=True)
        self._report(verdict, asked)
        return verdict

    def _report(self, verdict: PartitionVerdict, engine: Engine | None) -> None:
        names = {found.rule for found in verdict.rules}
        broken = [rule for rule in self.rules.row_rules if rule.name in names]
        examples = {rule.name: report.examples(engine, self.rules, rule) for rule in broken} if engine else {}
        quiet = names | set(verdict.unasked)
        held = [rule.description for rule in self.rules.rules if rule.name not in quiet] if engine else []
        docs = self._data_docs()
        today = Profile(partition=self.partition, rows=verdict.rows_in, good=verdict.rows_good)
        trend = report.trend([*self.history.profiles, today]) if self.history.profiles else ""
        page = report.render(verdict.result(), examples, held, trend, docs)
        (self.out / "report.html").write_text(page, encoding="utf-8")

    def _data_docs(self) -> str:
        """Write the Data Docs, unless the files could not be opened and nothing was asked; answers the file's name."""
        if not self._results:
            return ""
        from reshelve.validation import data_docs

        page = data_docs.page(f"{self.source} {self.day}", self._results)
        (self.out / data_docs.NAME).write_text(page, encoding="utf-8")
        return data_docs.NAME
