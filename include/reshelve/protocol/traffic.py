"""What callers measured, version by version: requests, errors and latencies, reported to S3 by the client library.

A model server's own metrics carry no version, so they are measured where requests pass. Counts are kept by the number
of the pointer's move under which they were made: a step of a canary is judged on its own requests, whatever clocks say.
What customers ask and how high answers score is counted in histograms, never kept: they show drift, and nobody's words.
"""

from __future__ import annotations

import math
import threading
import zlib
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError, model_validator

from reshelve.logs import logger
from reshelve.names import ClientName, Version, Words, require_machine, require_ranker
from reshelve.statistics.interval import Interval
from reshelve.statistics.quantiles import order_statistics
from reshelve.store.layout import deployments_of

if TYPE_CHECKING:
    from reshelve.store.objects import ObjectStore

_STEP = math.log(1.05)  # buckets 5 % wide
_KEPT = 16
_BINS_PER_DOUBLING = 8  # of a score or a length, named as clickstream.profile names its bins
_TOPICS = 64
BUSY = "BusyError"
"""The error of a request that servers refused because no thread is free until its deadline."""

Bucket = Annotated[int, Field(ge=0, le=500)]
Bin = Annotated[str, Field(pattern=r"^([+-]-?[0-9]{1,6}|0|t[0-9]{1,2})$")]


def bucket(milliseconds: float) -> int:
    """The latency bucket of a request: 0 is up to 0.1 ms, each further one reaches 5 % further."""
    return max(0, math.ceil(math.log(max(milliseconds, 0.1) / 0.1) / _STEP))


def upper_bound(number: int) -> float:
    """The largest latency of a bucket, in milliseconds."""
    return 0.1 * math.exp(number * _STEP)


def number_bin(value: float) -> str:
    """The histogram bin of a score or a length: its sign and its sixteenth of a doubling, in steps of two."""
    if value == 0 or not math.isfinite(value):
        return "0"
    place = 2 * math.floor(_BINS_PER_DOUBLING * math.log2(abs(value)) + 1e-6)
    return f"{'+' if value > 0 else '-'}{place}"


def topic_bin(text: str) -> str:
    """One of 64 bins for a text's first words: what is asked, without the words."""
    return f"t{zlib.crc32(text.strip().lower().encode()) % _TOPICS}"


class Counts(BaseModel):
    """Requests of one version. One that failed is an error, one that did not fit is rejected; neither has a latency."""

    model_config = ConfigDict(extra="ignore")

    requests: NonNegativeInt = 0
    errors: dict[Words, NonNegativeInt] = Field(
        default_factory=dict, description="Failures of the server or the version."
    )
    rejected: dict[Words, NonNegativeInt] = Field(
        default_factory=dict, description="Requests that do not fit the version: their callers' errors."
    )
    refusals: int = Field(0, ge=0, description="Tries that a server refused because no thread is free.")
    latency: dict[Bucket, NonNegativeInt] = Field(default_factory=dict, description="Bucket → requests.")
    scores: dict[Bin, NonNegativeInt] = Field(
        default_factory=dict, description="Bin of the best score → answers."
    )
    lengths: dict[Bin, NonNegativeInt] = Field(
        default_factory=dict, description="Bin of the text's length → answers."
    )
    topics: dict[Bin, NonNegativeInt] = Field(
        default_factory=dict, description="Bin of what was asked → answers."
    )

    @property
    def failed(self) -> int:
        """Requests that the server or the version failed."""
        return sum(self.errors.values())

    @property
    def faults(self) -> int:
        """Failures that may be the version's: because no thread is free a request says nothing of it."""
        return self.failed - self.errors.get(BUSY, 0)

    @property
    def misfits(self) -> int:
        """Requests that were rejected."""
        return sum(self.rejected.values())

    @property
    def judged(self) -> int:
        """Requests that say something of the version: neither rejected nor without a free thread."""
        return self.requests - self.misfits - self.errors.get(BUSY, 0)

    @property
    def adds_up(self) -> bool:
        """Whether there are no more outcomes than requests."""
        return self.failed + self.misfits + sum(self.latency.values()) <= self.requests

    def add(
        self,
        milliseconds: float | None,
        error: str | None = None,
        rejected: str | None = None,
        refusals: int = 0,
    ) -> None:
        """Count one request, and how often a busy server refused it before."""
        self.requests += 1
        self.refusals += refusals
        if error is not None:
            _count(self.errors, error)
        elif rejected is not None:
            _count(self.rejected, rejected)
        elif milliseconds is not None:
            place = bucket(milliseconds)
            self.latency[place] = self.latency.get(place, 0) + 1

    def describe(self, text: str | None, score: float | None) -> None:
        """Count what one answered request was about, and its best score."""
        if text is not None:
            _count(self.lengths, number_bin(len(text)))
            _count(self.topics, topic_bin(text.partition(" ; ")[0]))
        if score is not None:
            _count(self.scores, number_bin(score))

    def plus(self, other: Counts) -> Counts:
        """Both together."""
        return self._with(other, 1)

    def minus(self, earlier: Counts) -> Counts:
        """What came since `earlier`, which are counts of the same client."""
        return self._with(earlier, -1)

    def _with(self, other: Counts, sign: int) -> Counts:
        def together(a: dict, b: dict) -> dict:  # type: ignore[type-arg]
            summed = {key: a.get(key, 0) + sign * b.get(key, 0) for key in a.keys() | b.keys()}
            return {key: count for key, count in summed.items() if count > 0}

        return Counts(
            requests=max(0, self.requests + sign * other.requests),
            errors=together(self.errors, other.errors),
            rejected=together(self.rejected, other.rejected),
            refusals=max(0, self.refusals + sign * other.refusals),
            latency=together(self.latency, other.latency),
            scores=together(self.scores, other.scores),
            lengths=together(self.lengths, other.lengths),
            topics=together(self.topics, other.topics),
        )

    def at_rank(self, rank: float) -> float:
        """The latency (ms) of the `rank`-th fastest answer, from 1."""
        seen, last = 0, 0
        for number in sorted(self.latency):
            last, seen = number, seen + self.latency[number]
            if seen >= rank:
                break
        return upper_bound(last)

    @property
    def p95(self) -> Interval | None:
        """The 95th percentile of the latency (ms) with its 99 % interval; None without latencies."""
        return order_statistics(self.at_rank, sum(self.latency.values()), 0.95)


def _count(histogram: dict[str, int], name: str) -> None:
    histogram[name] = histogram.get(name, 0) + 1


class TrafficReport(BaseModel):
    """What one client counted: pointer's sequence → version → counts."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    client: ClientName
    at: datetime
    counts: dict[NonNegativeInt, dict[Version, Counts]]

    @model_validator(mode="after")
    def _counts_add_up(self) -> TrafficReport:
        if not all(counts.adds_up for by_version in self.counts.values() for counts in by_version.values()):
            raise ValueError("it tells of more errors and answers than requests")
        return self


class Meter:
    """Counts of one client. Threads may share it."""

    def __init__(self, client: str) -> None:
        self.client = require_machine(client, "client")
        self._counts: dict[int, dict[int, Counts]] = {}
        self._lock = threading.Lock()

    def add(
        self,
        sequence: int,
        version: int,
        milliseconds: float | None,
        error: str | None = None,
        *,
        rejected: str | None = None,
        refusals: int = 0,
        text: str | None = None,
        score: float | None = None,
    ) -> None:
        """Count one request of `version`, made while the pointer's move `sequence` was known; `text` is not kept.

        `error`: what the server or the version did wrong; `rejected`: what was wrong with the request itself;
        `refusals`: tries that a busy server refused before.
        """
        with self._lock:
            counts = self._counts.setdefault(sequence, {}).setdefault(version, Counts())
            counts.add(milliseconds, error, rejected, refusals)
            counts.describe(text, score)
            for old in sorted(self._counts)[:-_KEPT]:
                del self._counts[old]

    def report(self) -> TrafficReport:
        """What was counted so far."""
        with self._lock:
            counts = {
                s: {v: c.model_copy(deep=True) for v, c in by.items()} for s, by in self._counts.items()
            }
        return TrafficReport(client=self.client, at=datetime.now(UTC), counts=counts)


def traffic_prefix(ranker: str) -> str:
    """Where clients report."""
    return f"{deployments_of(require_ranker(ranker))}traffic/"


def write_traffic(store: ObjectStore, ranker: str, report: TrafficReport) -> None:
    """Replace the client's report."""
    store.put_json(f"{traffic_prefix(ranker)}{report.client}.json", report.model_dump(mode="json"))


def read_traffic(store: ObjectStore, ranker: str, since: int) -> dict[int, Counts]:
    """Version → what all clients counted since the pointer's move `since`."""
    return merged(read_traffic_reports(store, ranker), since)


def read_traffic_reports(store: ObjectStore, ranker: str) -> list[TrafficReport]:
    """The newest report of every client. A damaged one is left out, with a warning."""
    reports = []
    for key, _ in store.list(traffic_prefix(ranker)):
        found = store.get(key)
        try:
            if found is None:
                continue
            report = TrafficReport.model_validate_json(found.body)
            if key == f"{traffic_prefix(ranker)}{report.client}.json":
                reports.append(report)
            else:
                logger().warning("ignored a traffic report under another name", key=key)
        except ValidationError as error:
            logger().warning("a traffic report is damaged", key=key, problem=str(error.errors()[0]["msg"]))
    return reports


def merged(reports: Iterable[TrafficReport], since: int) -> dict[int, Counts]:
    """Version → counts of all reports since the pointer's move `since`."""
    found: dict[int, Counts] = {}
    for report in reports:
        for sequence, by_version in report.counts.items():
            if sequence >= since:
                for version, counts in by_version.items():
                    found[version] = found.get(version, Counts()).plus(counts)
    return found
