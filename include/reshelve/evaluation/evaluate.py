"""Any published version on any validated days of any source: the gate's metrics with intervals, and no verdict.

The version is loaded from the object store into a model server of its own, as the gate loads it, and is asked what
happened on those days; popularity, BM25 and counts of the days before are asked the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from reshelve.config.ranker import Ranker, ranker_names, read_ranker
from reshelve.errors import ConfigurationError, DataError
from reshelve.evaluation.baselines import baselines
from reshelve.evaluation.comparison import HeldOut, Lists
from reshelve.evaluation.findings import calibration, latency_report, pooled_auc_report, slice_findings
from reshelve.evaluation.gate import ask, rank_by_baselines
from reshelve.evaluation.metrics import Metric, reported
from reshelve.evaluation.scoring import answers_as, catalogue_of
from reshelve.evaluation.slices import Familiarity
from reshelve.examples.catalogue import Catalogue
from reshelve.examples.event_counts import EventCounts
from reshelve.examples.held_out import held_out
from reshelve.examples.partitions import Split
from reshelve.kind_registry import kind_of
from reshelve.lineage.run import Run
from reshelve.logs import logger
from reshelve.scratch import scratch
from reshelve.store.manifest import Manifest
from reshelve.store.objects import ObjectStore, object_store
from reshelve.store.versions import download_version, read_manifest, require_manifest
from reshelve.validation.verdicts import validated_partitions

VERSION = "challenger"  # as the parts of the gate's report call what is judged


def evaluate(
    version: int,
    source: str,
    ranker: str | None = None,
    first: date | None = None,
    last: date | None = None,
    metric: str | None = None,
) -> dict[str, Any]:
    """Score `version` on `source` from `first` to `last` (default: the newest days, as many as the gate holds out).

    `ranker` is needed only where several have a version of that number. `metric`: in place of the ranker file's. Returns
    `metrics` of the version and the baselines with 95 % intervals, the paired `differences`, slices, calibration and
    latency; `seen` are the days that the version was made from.

    Raises ConfigurationError for a name or a metric that is none, DataError where the version is not published, is another
    kind than the ranker file's, or the days give no question.
    """
    if first and last and first > last:
        raise ConfigurationError(f"the first day {first} is after the last day {last}")
    store = object_store()
    manifest = _manifest(store, version, ranker)
    changes = {"data.source": source, **({"gates.metric": metric} if metric else {})}
    spec = read_ranker(manifest.ranker, changes)
    split = _split(store, spec, first, last)
    run = Run.of(spec, split.holdout[-1])
    with scratch("evaluate") as directory:
        served = directory / "version" / str(version)
        served.parent.mkdir()
        download_version(store, manifest.ranker, version, served)
        if answers_as(served) != spec.kind:
            raise DataError(
                f"{manifest.ranker} version {version} is a {answers_as(served)}, its ranker file says {spec.kind}",
                "the two kinds answer different questions",
            )
        found = _score(run, split, served, directory / "examples")
    seen = [
        str(day) for day in split.holdout if manifest.lineage.verdicts.get(str(day)) == split.digests[day]
    ]
    if seen:
        logger(stage="evaluate").warning(
            "the version was trained on these days", first=seen[0], last=seen[-1], days=len(seen)
        )
    return {
        "ranker": manifest.ranker,
        "version": version,
        "source": source,
        "first": str(split.holdout[0]),
        "last": str(split.holdout[-1]),
        "days": len(split.holdout),
        "days_before": len(split.validation),
        "seen": seen,
        **found,
    }


def _manifest(store: ObjectStore, version: int, ranker: str | None) -> Manifest:
    """The manifest of the one version of that number. Raises ConfigurationError where several rankers have one."""
    if ranker:
        return require_manifest(store, ranker, version)
    found = [one for name in ranker_names() if (one := read_manifest(store, name, version))]
    if len(found) > 1:
        named = ", ".join(one.ranker for one in found)
        raise ConfigurationError(
            f"version {version} is published by {len(found)} rankers", f"say which by --ranker: {named}"
        )
    if not found:
        raise DataError(f"no ranker has published version {version}", f"asked: {', '.join(ranker_names())}")
    return found[0]


def _split(store: ObjectStore, spec: Ranker, first: date | None, last: date | None) -> Split:
    """The usable days that are asked about, and those of the window before them, from which the baselines count."""
    data = spec.data
    verdicts = validated_partitions(store, data.source, None, last)
    usable = {verdict.partition: verdict.digest for verdict in verdicts if verdict.usable}
    days = sorted(usable)
    asked = [day for day in days if day >= first] if first else days[-data.holdout_partitions :]
    if not asked:
        raise DataError(
            f"{data.source} has no usable day between {first or 'its first'} and {last or 'its last'}",
            "expected days that are landed and validated, not stopped",
        )
    begins = asked[0]
    before = [day for day in days if begins - timedelta(days=data.window_days) <= day < begins]
    excluded = {verdict.partition: verdict.verdict.value for verdict in verdicts if not verdict.usable}
    # The past is nobody's training here; `validation` is the part before the holdout that is counted and not learned from.
    return Split((), tuple(before), tuple(asked), begins, usable, excluded)


def _score(run: Run, split: Split, served: Path, directory: Path) -> dict[str, Any]:
    spec = run.ranker
    known = _own_catalogue(served)
    questions, catalogue = held_out(run, split, directory, known)
    metrics = reported(Metric.parse(spec.gates.metric), whole_lists=kind_of(spec.kind).evaluation.whole_lists)
    held = HeldOut(questions, metrics, spec.training.seed)
    if not held.weights.any():
        raise DataError(
            f"no question of {split.holdout[0]} to {split.holdout[-1]} can tell a better order from a worse one",
            f"expected questions with a choice and another candidate among the {len(questions)}",
        )
    answers = ask({VERSION: served}, spec.kind, questions)
    labels = {str(name): weight for name, weight in spec.data.events.items()}
    past = EventCounts(
        directory / "events.parquet", catalogue, labels, split.begins, directory / "spill", spec.remember
    )
    rivals = rank_by_baselines(spec, past, questions) if split.validation else {}
    ranked: dict[str, Lists] = {VERSION: answers[VERSION].ranked, **rivals}
    values = {name: held.values(lists) for name, lists in ranked.items()}
    own = held.interval(values[VERSION])
    if own is None:
        raise DataError(
            f"{metrics[0]} has no value on any question", "expected lists that hold a relevant item"
        )
    grades = spec.examples.grades if spec.examples.labels == "judgements" else None
    slices = slice_findings(
        held, values, spec.kind, Familiarity.of(past, questions, spec.kind), spec.gates.slice_queries
    )
    items = catalogue_of(served)
    return {
        "metric": str(metrics[0]),
        "value": own._asdict(),
        "metrics": {_said(name): _intervals(held, lists) for name, lists in ranked.items()},
        "differences": {
            name: compared.difference._asdict()
            for name in [each.name for each in baselines()]
            if name in values and (compared := held.compare(name, values[VERSION], values[name]))
        },
        "queries": len(questions),
        "counted": int(held.counted(values[VERSION]).sum()),
        "clusters": len(set(held.clusters[held.counted(values[VERSION])].tolist())),
        "unknown_answers": sum(not items.intersection(query.relevant) for query in questions),
        "broken": answers[VERSION].broken,
        "question_set": held.digest,
        "slices": {found.name: _renamed(found.shown(), "values") for found in slices},
        "pooled_auc": (pooled_auc_report(held, answers, spec.kind) or {}).get(VERSION),
        "calibration": calibration(held, answers[VERSION], spec.kind, grades).report,
        "latency": latency_report(answers)[VERSION],
    }


def _intervals(held: HeldOut, lists: Lists) -> dict[str, dict[str, float] | None]:
    """Each metric with its 95 % interval; None where no question has a value."""
    return {
        str(metric): found._asdict() if (found := held.interval(held.values(lists, metric))) else None
        for metric in held.metrics
    }


def _own_catalogue(served: Path) -> Catalogue:
    """What the version itself knows: the candidates of a source without a past."""
    with (served / "assets.extra" / "catalogue.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    items = [row["item"] for row in rows]
    return Catalogue(
        items, [row.get("title") or row["item"] for row in rows], [0] * len(items), [0] * len(items)
    )


def _said(name: str) -> str:
    return "version" if name == VERSION else name


def _renamed(report: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {**report, key: {_said(name): value for name, value in report[key].items()}}
