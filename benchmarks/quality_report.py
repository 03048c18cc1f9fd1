"""What bench_quality prints of its nights: a table for people, one JSON line for machines."""

from __future__ import annotations

import json

import numpy as np
import quality_peer
from quality_night import Night
from rich.console import Console
from rich.table import Table

from reshelve.config.ranker import Ranker
from reshelve.evaluation import graded
from reshelve.evaluation.comparison import HeldOut
from reshelve.evaluation.metrics import Metric, reported
from reshelve.reporting.words import figure
from reshelve.statistics.correlation import spearman
from reshelve.statistics.interval import Interval

_WIDTH = 160
_OURS = ("reshelve", quality_peer.NETWORK)  # each is compared with every column to its right


def held(ranker: Ranker, nights: list[Night]) -> HeldOut:
    """The questions of all nights; those of one cluster and day rise and fall together."""
    queries = [query for night in nights for query in night.queries]
    metric = Metric.parse(ranker.gates.metric)
    return HeldOut(queries, reported(metric, whole_lists=ranker.kind == "pair"), ranker.training.seed)


def summary(ranker: Ranker, nights: list[Night]) -> dict[str, float | None]:
    """The gate's metric of every ranker; None where no question has a value."""
    questions = held(ranker, nights)
    return {
        name: rounded(questions.mean(questions.values([r for night in nights for r in night.ranked[name]])))
        for name in nights[0].ranked
    }


def rounded(value: float | None) -> float | None:
    """Four places."""
    return None if value is None else round(value, 4)


def grading(ranker: Ranker, nights: list[Night]) -> dict[str, float | None]:
    """Of judgements: Spearman's correlation and, in grades, the error of every pair's score; else nothing."""
    if ranker.examples.labels != "judgements":
        return {}
    low, high = ranker.examples.grades
    rows = [
        (score, query.gain.get(item, 0.0) / (high - low))
        for night in nights
        for query, items, scores in zip(night.queries, night.ranked["reshelve"], night.scores, strict=True)
        for item, score in zip(items, scores, strict=True)
    ]
    score, grade = np.array(rows).T
    error = graded.rmse(score, grade)
    return {
        "spearman": rounded(spearman(score, grade)),
        "rmse": rounded(None if error is None else (high - low) * error),
    }


def report(ranker: Ranker, named: list[tuple[str, Night]]) -> None:
    """The table and the JSON line, of nights by their names."""
    nights = [night for _, night in named]
    names, questions = list(nights[0].ranked), held(ranker, nights)
    lists = {name: [r for night in nights for r in night.ranked[name]] for name in names}
    values = {name: questions.values(lists[name]) for name in names}
    mean = questions.interval(values["reshelve"])
    # Paired, question by question.
    differences = {
        ours: {
            other: found.difference
            for other in names[names.index(ours) + 1 :]
            if (found := questions.compare(other, values[ours], values[other])) is not None
        }
        for ours in _OURS
        if ours in names
    }
    show(ranker, named, differences)
    document = {
        "benchmark": "quality", "ranker": ranker.name, "metric": ranker.gates.metric,
        "days": [name for name, _ in named], "questions": float(questions.weights.sum()),
        **grading(ranker, nights), **(mean._asdict() if mean else {}),
        "metrics": {name: questions.all_metrics(lists[name]) for name in names},
        "differences": {name: of._asdict() for name, of in differences["reshelve"].items()},
        "network_differences": {n: of._asdict() for n, of in differences.get(quality_peer.NETWORK, {}).items()},
        "nights": [
            {"day": name, **summary(ranker, [n]), **grading(ranker, [n]), "seconds": n.seconds, "peak_mib": n.peak_mib}
            for name, n in named
        ],
    }  # fmt: skip
    print(json.dumps(document))


def show(ranker: Ranker, named: list[tuple[str, Night]], differences: dict[str, dict[str, Interval]]) -> None:
    """The table: a row for each night, one for all of them, and what each of ours is ahead by."""
    nights = [night for _, night in named]
    names, graded_by = list(nights[0].ranked), list(grading(ranker, nights[:1]))
    costs = [name for name in ("train", "blend", quality_peer.LIGHTGBM) if name in nights[0].seconds]
    table = Table(
        "day", "questions", *names, *graded_by, *(f"{name} s" for name in costs), "peak MiB",
        title=f"{ranker.name}: {ranker.gates.metric}",
    )  # fmt: skip
    for title, shown in [*((name, [night]) for name, night in named), ("all", nights)]:
        row = grading(ranker, shown) | summary(ranker, shown)
        weight = sum(query.weight for night in shown for query in night.queries)
        spent = [f"{sum(night.seconds[name] for night in shown):.0f}" for name in costs]
        peak = max(night.peak_mib for night in shown)
        table.add_row(
            title, f"{weight:.0f}", *(figure(row[name]) for name in (*names, *graded_by)), *spent, str(peak),
            style="bold" if title == "all" else None,
        )  # fmt: skip
    console = Console(width=_WIDTH)
    console.print(table)
    for ours, rivals in differences.items():
        told = (f"{name} {of.value:+.4f} ({of.low:+.4f} to {of.high:+.4f})" for name, of in rivals.items())
        console.print(f"{ours} minus " + " · ".join(told), highlight=False, soft_wrap=True)
    if ranker.kind == "search" and quality_peer.LIGHTGBM not in names:
        console.print(quality_peer.LEFT_OUT, highlight=False, markup=False)
