"""Validate a partition: Great Expectations judges, bad rows go to quarantine, `verdict.json` is written last.

The same landed objects under the same rules and code are not judged again. A stop verdict leaves the
landed data as it is and no `good.parquet`, so nothing downstream can read what nobody may use.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any

from reshelve.clickstream.events import catalogue_key, landed_prefix, validated_prefix
from reshelve.clickstream.forgotten import Forgotten, read_forgotten, require_no_wish_since
from reshelve.errors import ConfigurationError, TryAgainError
from reshelve.logs import logger
from reshelve.progress import Progress
from reshelve.raw.local_files import plain_name
from reshelve.raw.sources import ClickstreamSource, load_source
from reshelve.scratch import scratch
from reshelve.settings import settings
from reshelve.store.objects import ObjectStore, object_store
from reshelve.validation.history import load_history
from reshelve.validation.partition_check import PartitionCheck
from reshelve.validation.rules import RuleFile, load_rules
from reshelve.validation.verdicts import (
    PartitionDecision,
    PartitionVerdict,
    days_between,
    landed_digest,
    landed_objects,
    landed_partitions,
    read_verdict,
    verdict_key,
)
from reshelve.validation.waivers import released_rules

_JUDGING = ("clickstream", "raw", "validation")  # the packages whose code decides on a partition


def validate(source: str, partition: date) -> dict[str, Any]:
    """Judge one landed partition; returns its `PartitionVerdict` as JSON, and `reused` where it was judged before.

    verdict `missing` where nothing has landed. Data faults of any kind end in a verdict; a wrong mapping or
    rule file raises ConfigurationError, a store that is away TryAgainError.
    """
    mapping = load_source(source)
    return _validate(object_store(), mapping, partition, load_rules(mapping.rules))


def validate_range(source: str, first: date | None = None, last: date | None = None) -> dict[str, Any]:
    """Judge every day from `first` to `last` (default: all that have landed) in one process.

    A broken day in a long history must not block the others, so `verdict` is pass while any day is usable;
    it is stop where no day that landed is, missing where none landed. `verdicts` has each day's own.
    """
    store = object_store()
    mapping = load_source(source)
    rules = load_rules(mapping.rules)
    landed = landed_partitions(store, source)
    first, last = first or min(landed, default=None), last or max(landed, default=None)
    if first is None or last is None:
        first = last = first or last
    if first and last and first > last:
        raise ConfigurationError(f"the first day {first} is after the last day {last}")
    days = days_between(first, last) if first and last else []
    results = []
    log = logger(stage="validate", source=source)
    progress = Progress(log, "validating", "partitions", len(days))
    for number, day in enumerate(days, 1):
        result = _validate(store, mapping, day, rules)
        results.append(result)
        progress.add()
        log.info("validated", partition=str(day), verdict=result["verdict"], done=f"{number}/{len(days)}",
                 rows=result["rows_in"], quarantined=result["rows_quarantined"], reused=result["reused"])  # fmt: skip
    return _range_result(source, results)


def _range_result(source: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    by_verdict = {
        decision: [r for r in results if r["verdict"] == decision] for decision in PartitionDecision
    }
    usable = by_verdict[PartitionDecision.PASS] + by_verdict[PartitionDecision.WARN]
    stopped = by_verdict[PartitionDecision.STOP]
    verdict = (
        PartitionDecision.PASS if usable else PartitionDecision.STOP if stopped else PartitionDecision.MISSING
    )
    total = {key: sum(r[key] for r in results) for key in ("rows_in", "rows_good", "rows_quarantined")}
    headline = (
        f"{source}: {len(usable)} of {len(results)} days usable"
        f" ({len(by_verdict[PartitionDecision.WARN])} with a warning), {len(stopped)} stopped,"
        f" {len(by_verdict[PartitionDecision.MISSING])} missing;"
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
        "partitions": len(results) - len(by_verdict[PartitionDecision.MISSING]),
        **total,
        "missing": [r["partition"] for r in by_verdict[PartitionDecision.MISSING]],
        "verdicts": [
            {key: r[key] for key in keys} for r in results if r["verdict"] != PartitionDecision.MISSING
        ],
    }


def _validate(
    store: ObjectStore, mapping: ClickstreamSource, partition: date, rules: RuleFile
) -> dict[str, Any]:
    source, rules = mapping.name, rules.of_day(partition, mapping.time_zone)
    objects = landed_objects(store, source, partition)
    if not objects:
        headline = f"{source} {partition}: nothing has landed"
        missing = PartitionVerdict(
            verdict=PartitionDecision.MISSING, headline=headline, source=source, partition=partition
        )
        return {**missing.result(), "reused": False}
    forgotten = read_forgotten(store, source)  # before a row is read
    landed = landed_digest(store, objects)
    released = released_rules(store, source, partition)
    judged_by = f"{landed}|{rules.digest()}|{','.join(released)}|{_code_digest()}"
    digest = hashlib.sha256(judged_by.encode()).hexdigest()[:12]
    stored = read_verdict(store, source, partition)
    if stored is not None and stored.digest == digest:
        return {**stored.result(), "reused": True}
    started = time.monotonic()
    verdict = PartitionVerdict(
        verdict=PartitionDecision.STOP, headline="", source=source, partition=partition,
        digest=digest, landed=landed, folder=f"{digest}/", released=released,
    )  # fmt: skip
    verdict = _judge(store, verdict, objects, rules.releasing(released), forgotten)
    logger(stage="validate", source=source, partition=str(partition)).debug(
        "judged", verdict=verdict.verdict.value, seconds=round(time.monotonic() - started, 2)
    )
    return {**verdict.result(), "reused": False}


def _judge(
    store: ObjectStore,
    verdict: PartitionVerdict,
    objects: Sequence[str],
    rules: RuleFile,
    forgotten: Forgotten,
) -> PartitionVerdict:
    """Judge into a scratch directory, publish its files in a folder of their own, then the verdict.

    `verdict` says what is judged and where it will be. Killed at any moment, the old verdict and its files are
    as they were, and the next try writes the same folder again.
    """
    source, partition = verdict.source, verdict.partition
    with scratch("validate") as directory:
        out = directory / "validated"
        out.mkdir()
        history = load_history(
            store,
            source,
            partition,
            rules.weeks_back,
            settings().work / "history",
            items=rules.compares_items,
        )
        judgement = PartitionCheck(
            source,
            partition,
            rules,
            directory / "partition.duckdb",
            out,
            _products(store, source, directory),
            history,
            settings().validation_engine,
        )
        judged = judgement.judge(
            _download(store, landed_prefix(source, partition), objects, directory / "landed")
        )
        kept = verdict.model_dump(include={"digest", "landed", "folder", "released"})
        judged = judged.model_copy(update={**kept, "report_uri": store.uri(verdict.file("report.html"))})
        _require_rows_as_read(store, verdict, objects, forgotten)
        store.upload_directory(out, validated_prefix(source, partition) + verdict.folder.rstrip("/"))
    store.put_json(
        judged.file("verdict.json"), judged.result()
    )  # of its own: models keep its digest in their lineage
    store.put_json(verdict_key(source, partition), judged.result())
    return judged


def _require_rows_as_read(
    store: ObjectStore, verdict: PartitionVerdict, objects: Sequence[str], forgotten: Forgotten
) -> None:
    """Raises TryAgainError where `forget` was asked for, or was at work on these rows, since they were read."""
    source, day = verdict.source, verdict.partition
    require_no_wish_since(store, source, forgotten, f"{day} was validated")
    if forgotten.digests and landed_digest(store, objects) != verdict.landed:
        raise TryAgainError(f"{source}: {day} lost rows while it was validated", "validate it again")


def _download(store: ObjectStore, prefix: str, objects: Sequence[str], directory: Path) -> list[Path]:
    paths = []
    for number, key in enumerate(objects):
        path = directory / str(number) / plain_name(key[len(prefix) :].replace("/", "__"), number)
        store.download_file(key, path)
        paths.append(path)
    return paths


def _products(store: ObjectStore, source: str, scratch: Path) -> Path | None:
    if not store.exists(catalogue_key(source)):
        return None
    path = scratch / "products.parquet"
    store.download_file(catalogue_key(source), path)
    return path


@lru_cache(maxsize=1)
def _code_digest() -> str:
    """12 hex digits over the code that judges, so that a mended rule engine judges again."""
    digest, root = hashlib.sha256(), Path(__file__).parents[1]
    for path in sorted(path for name in _JUDGING for path in (root / name).glob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
