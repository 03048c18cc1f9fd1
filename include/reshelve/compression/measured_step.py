"""Whether a step stays: both packaged versions in one model server, asked the same held-out questions in turn."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reshelve.client.client import RankingClient
from reshelve.compression.context import Context
from reshelve.compression.measure import Agreement, GraphScorer, agreement
from reshelve.compression.rounding import scores
from reshelve.config.compression import Criterion
from reshelve.evaluation.comparison import HeldOut
from reshelve.evaluation.metrics import Metric
from reshelve.evaluation.scoring import ServedModel
from reshelve.examples.formats import HoldoutQuery, read_holdout
from reshelve.examples.readers import for_compression
from reshelve.export.batches import text_rows
from reshelve.export.candidate import Candidate
from reshelve.export.heldout import HeldOutQuestion, read_questions
from reshelve.export.version import VersionBuilder, size_of
from reshelve.kind import Requests
from reshelve.kind_registry import kind_of
from reshelve.logs import logger
from reshelve.modelserver.local_server import running_model_server
from reshelve.notation import plain
from reshelve.statistics.bootstrap import LEAST_CLUSTERS, bootstrap_of_median_ratio
from reshelve.statistics.interval import Interval

BEFORE, AFTER = "before", "after"
_ROUNDS, _MOST_ROUNDS = 20, 80  # requests to each version; more only while the interval leaves it open
_MOST_SECONDS = 60.0
_ALIKE = 48  # questions whose scores are compared
_SHORTLIST = 20  # candidates of each
_SECONDS = 120.0


@dataclass(frozen=True)
class StepMeasurement:
    """A step's figures: packaged bytes, median milliseconds and their ratio, the change of gates.metric, likeness of scores."""

    bytes: dict[str, int]
    milliseconds: dict[str, float]
    ratio: Interval
    difference: Interval | None  # None: too few questions
    agreement: Agreement


def judge(before: Candidate, after: Candidate, context: Context) -> StepMeasurement:
    """Package both, serve both, ask both. Raises DataError where a version cannot be loaded or answers nonsense."""
    builder = VersionBuilder(context.run)
    versions = {BEFORE: context.scratch / BEFORE, AFTER: context.scratch / AFTER}
    for (name, directory), candidate in zip(versions.items(), (before, after), strict=True):
        shutil.rmtree(directory, ignore_errors=True)
        builder.write(builder.module(candidate.model, candidate.layers()), directory)
        logger(stage="compress").info("written", version=name, bytes=size_of(directory))
    questions = read_questions(context.examples, builder.catalogue, _MOST_ROUNDS)
    with running_model_server(versions) as addresses, RankingClient(addresses.grpc) as client:
        times = _timed(client, kind_of(after.model.document.kind).requests, questions)
        difference = _difference(client, builder, context)
    sizes = {name: size_of(directory) for name, directory in versions.items()}
    for directory in versions.values():
        shutil.rmtree(directory)
    return StepMeasurement(
        sizes,
        {name: round(float(np.median(found)), 3) for name, found in times.items()},
        bootstrap_of_median_ratio(times[BEFORE], times[AFTER]),
        difference,
        _alike(before, after, builder, context.examples),
    )


def _timed(
    client: RankingClient, requests: Requests, questions: list[HeldOutQuestion]
) -> dict[str, list[float]]:
    """Milliseconds of real requests, both versions in every round, in an order that turns."""
    times: dict[str, list[float]] = {BEFORE: [], AFTER: []}

    def ask(name: str, number: int) -> float:
        inputs = requests.of_questions(questions, requests.rows, number)
        start = time.perf_counter()
        client.predict(name, inputs, version=1, timeout=_SECONDS)
        return (time.perf_counter() - start) * 1000

    return in_turn(ask, times)


def in_turn(ask: Callable[[str, int], float], times: dict[str, list[float]]) -> dict[str, list[float]]:
    """Rounds until the ratio's interval is on one side of 1, at least _ROUNDS, at most _MOST_ROUNDS or _MOST_SECONDS."""
    for name in times:
        ask(name, 0)  # packs the weights
    began = time.monotonic()
    for number in range(_MOST_ROUNDS):
        for name in list(times) if number % 2 else reversed(list(times)):
            times[name].append(ask(name, number))
        if number + 1 >= _ROUNDS and (number + 1) % 10 == 0:
            ratio = bootstrap_of_median_ratio(times[BEFORE], times[AFTER])
            if not ratio.low <= 1 <= ratio.high or time.monotonic() - began > _MOST_SECONDS:
                break
    return times


def _difference(client: RankingClient, builder: VersionBuilder, context: Context) -> Interval | None:
    """What gates.metric changes by, paired, over the held-out questions that the gate does not read.

    None where they come from too few clusters to tell.
    """
    ranker = context.run.ranker
    queries = _spread(
        read_holdout(context.examples / "holdout.parquet"), kind_of(ranker.kind).evaluation.questions
    )
    held = HeldOut(queries, [Metric.parse(ranker.gates.metric)], ranker.training.seed)
    clusters = len(set(held.clusters.tolist()))
    if clusters >= LEAST_CLUSTERS:
        known = frozenset(builder.catalogue.items)
        before, after = (
            held.values(ServedModel(client, name, ranker.kind, known).answer(queries).ranked)
            for name in (BEFORE, AFTER)
        )
        clusters = len(set(held.clusters[held.counted(after - before)].tolist()))
        if clusters >= LEAST_CLUSTERS:
            return held.interval(after - before)
    logger(stage="compress").warning(
        "too few held-out questions to tell whether quality changes",
        questions=len(queries), clusters=clusters, least_clusters=LEAST_CLUSTERS,
    )  # fmt: skip
    return None


def _spread(queries: list[HoldoutQuery], most: int) -> list[HoldoutQuery]:
    asked = [query for query in queries if query.orders and for_compression(query.cluster)]
    return asked[:: max(1, len(asked) // most)][:most]


def _alike(before: Candidate, after: Candidate, builder: VersionBuilder, examples: Path) -> Agreement:
    """How alike both score the compression verdict's questions, each by itself."""
    model, catalogue = before.model, builder.catalogue
    questions = read_questions(examples, catalogue, _ALIKE, for_compression)
    tokenizer, length = builder.train / "tokenizer.json", model.document.max_length
    kind = kind_of(model.document.kind)
    texts = [
        kind.export.texts(
            kind.requests.of_questions([q], min(kind.requests.rows, _SHORTLIST, len(q.candidates))), catalogue
        )
        for q in questions
    ]
    flat: list[Any] = [text for of_question in texts for text in of_question]
    rows = text_rows(tokenizer, length, flat)
    ends = np.cumsum([len(of_question) for of_question in texts])[:-1]
    found = []
    for candidate in (before, after):
        with GraphScorer(candidate.model, candidate.layers()) as score:
            found.append([part.ravel() for part in np.split(scores(score, rows), ends)])
    return agreement(*found)


def verdict(
    criterion: Criterion, found: StepMeasurement, min_agreement: float, tolerance: float
) -> tuple[bool, str]:
    """Whether the step stays, and why, in words."""
    ratio, difference = found.ratio, found.difference
    speed = f"{ratio.value:.2f} of the time before ({ratio.low:.2f} to {ratio.high:.2f})"
    alike = found.agreement.spearman
    quality = "quality cannot be told: too few held-out questions"
    if difference is not None:
        quality = f"quality {difference.value:+.4f} ({difference.low:+.4f} to {difference.high:+.4f})"
    if criterion == "agreement":  # scores that agree rank alike, and few questions are no reason to doubt it
        if alike is None:
            return (
                False,
                "agreement cannot be told: all scores are equal",
            )
        if alike < min_agreement:
            return False, f"agreement {alike:.3f} is below {plain(min_agreement)}"
        if difference is not None and difference.high < 0:
            return False, f"{quality}: it dropped significantly"
    elif difference is None:
        return False, quality
    elif difference.low < -tolerance:
        return False, f"{quality}: it may have dropped by more than {plain(tolerance)}"
    if ratio.high >= 1:
        return False, f"not significantly faster: {speed}"
    of_what = (
        "" if found.agreement.questions else " of all scores together, since no question orders two items"
    )
    agrees = "cannot be told" if alike is None else f"{alike:.3f}{of_what}"
    return True, f"{speed}, {quality}, agreement {agrees}"


def shown(found: StepMeasurement, kind: str) -> dict[str, Any]:
    """The judgement as the stage's result has it."""

    def interval(of: Interval | None) -> dict[str, float] | None:
        return (
            None
            if of is None
            else {"value": round(of.value, 5), "low": round(of.low, 5), "high": round(of.high, 5)}
        )

    return {
        "agreement": found.agreement.spearman, "pearson": found.agreement.pearson,
        "bytes_before": found.bytes[BEFORE], "bytes_after": found.bytes[AFTER],
        "latency": {
            "rows": kind_of(kind).requests.rows, "before_ms": found.milliseconds[BEFORE], "after_ms": found.milliseconds[AFTER],
            "ratio": interval(found.ratio),
        },
        "quality": interval(found.difference),
    }  # fmt: skip
