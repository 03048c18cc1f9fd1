"""The verdict on a partition, as it is kept on S3 and as later stages read it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import date, timedelta
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict

from reshelve.clickstream.events import landed_prefix, validated_prefix
from reshelve.store.objects import ObjectStore
from reshelve.validation.rules import Severity

_LOOKED_AT = 7  # days whose validation may have been cut off before its verdict


class PartitionDecision(StrEnum):
    """What may be done with a partition."""

    PASS = "pass"  # use the good rows
    WARN = "warn"  # use the good rows; a person should look
    STOP = "stop"  # use nothing of it
    MISSING = "missing"  # nothing was landed


class BrokenRule(BaseModel):
    """A rule that the partition breaks."""

    model_config = ConfigDict(frozen=True)

    rule: str
    severity: Severity
    failed_rows: int | None  # None where the rule is not about rows
    message: str


class PartitionVerdict(BaseModel):
    """What `verdict.json` says. Always rows_in = rows_good + rows_quarantined.

    With stop nothing is good: every row is held back. `digest` names what was judged by what: the landed
    objects, the rules, what was released, and the code. `folder` is where its files are, below the partition's
    prefix: each verdict has its own, so that a new one takes nothing away from who reads an old one.
    """

    model_config = ConfigDict(frozen=True)

    verdict: PartitionDecision
    headline: str
    source: str
    partition: date
    rows_in: int = 0
    rows_good: int = 0
    rows_quarantined: int = 0
    masked: int = 0  # rows in whose texts something personal was masked, which landing had not
    rules: tuple[BrokenRule, ...] = ()
    unasked: tuple[str, ...] = ()  # rules that had too little to compare with
    released: tuple[str, ...] = ()  # quarantine rules that a person set aside for this day
    compared_with: int = 0  # past partitions
    engine: str = "duckdb"
    report_uri: str | None = None
    digest: str = ""
    landed: str = ""  # digest of the landed objects alone
    folder: str = ""

    @property
    def usable(self) -> bool:
        """Whether good rows may be read."""
        return self.verdict in (PartitionDecision.PASS, PartitionDecision.WARN)

    def file(self, name: str) -> str:
        """The key of one of its files: good.parquet, quarantine.parquet, report.html, data_docs.html, profile.json, items.parquet."""
        return validated_prefix(self.source, self.partition) + self.folder + name

    def result(self) -> dict[str, Any]:
        """As JSON-able values."""
        return self.model_dump(mode="json")


def verdict_key(source: str, partition: date) -> str:
    """The object that, written last, makes a validation be."""
    return validated_prefix(source, partition) + "verdict.json"


def read_verdict(store: ObjectStore, source: str, partition: date) -> PartitionVerdict | None:
    """The stored verdict, or None where the partition was not validated."""
    found = store.get_json(verdict_key(source, partition))
    return None if found is None else PartitionVerdict.model_validate(found)


def validation_page(store: ObjectStore, source: str, partition: date, name: str) -> bytes | None:
    """A page (report.html, data_docs.html) of the verdict that holds, UTF-8 HTML; None where there is none."""
    verdict = read_verdict(store, source, partition)
    found = store.get(verdict.file(name)) if verdict is not None else None
    return None if found is None else found.body


def landed_objects(store: ObjectStore, source: str, partition: date) -> list[str]:
    """The keys of a partition's files; markers that writers leave beside them are none."""
    keys = [key for key, _ in store.list(landed_prefix(source, partition))]
    return [key for key in keys if not key.rpartition("/")[2].startswith(("_", "."))]


def landed_digest(store: ObjectStore, objects: Sequence[str]) -> str:
    """12 hex digits over the objects' names and contents: a late file gives another."""
    listed = ";".join(f"{key},{store.etag(key)}" for key in objects)
    return hashlib.sha256(listed.encode()).hexdigest()[:12]


def landed_partitions(store: ObjectStore, source: str) -> list[date]:
    """The days that have landed, oldest first."""
    return partitions_below(store, landed_prefix(source, date.min))


def validated_partitions(
    store: ObjectStore, source: str, first: date | None = None, last: date | None = None
) -> list[PartitionVerdict]:
    """The stored verdicts of the days from `first` to `last` (both included), oldest first, stops included."""
    days = partitions_below(store, validated_prefix(source, date.min))
    found = [
        read_verdict(store, source, day) for day in days if (first or date.min) <= day <= (last or date.max)
    ]
    return [verdict for verdict in found if verdict is not None]


def newest_verdict(store: ObjectStore, source: str) -> PartitionVerdict | None:
    """The verdict on the newest day that has one."""
    days = partitions_below(store, validated_prefix(source, date.min))
    for day in sorted(days, reverse=True)[:_LOOKED_AT]:
        found = read_verdict(store, source, day)
        if found is not None:
            return found
    return None


def days_between(first: date, last: date) -> list[date]:
    """Every calendar day from `first` to `last`, both included."""
    return [first + timedelta(days=count) for count in range((last - first).days + 1)]


def partitions_below(store: ObjectStore, example: str) -> list[date]:
    """The days that have a folder beside that of `example`, any day's prefix of the kind."""
    found = []
    for folder in store.folders(example.partition("dt=")[0]):
        name, _, day = folder.partition("=")
        try:
            found.append(date.fromisoformat(day) if name == "dt" else None)
        except ValueError:
            continue  # something else that lives beside the partitions
    return [day for day in found if day is not None]
