"""What bench_quality prints of its nights: a table for people, one JSON line for machines."""

from __future__ import annotations

import json

import quality_peer
from quality_night import Night
from rich.console import Console
from rich.table import Table

from reshelve.evaluation.bootstrap import Interval
from reshelve.evaluation.comparison import HeldOut
from reshelve.evaluation.metrics import Metric, reported
from reshelve.rankers import Kind, Ranker

_WIDTH = 160
_OURS = ("reshelve", quality_peer.NETWORK)  # each is compared with every column to its right


def held(ranker: Ranker, nights: list[Night]) -> HeldOut:
    """The questions of all nights; those of one cluster and day rise and fall together."""
    queries = [query for night in nights for query in night.queries]
    metric = Metric.parse(ranker.gates.metric)
    return HeldOut(queries, reported(metric, whole_lists=ranker.kind is Kind.PAIR), ranker.training.seed)


def summary(ranker: Ranker, nights: list[Night]) -> dict[str, float]:
    """The gate's metric of every ranker."""
    questions = held(ranker, nights)
    return {
        name: round(questions.mean(questions.values([r for night in nights for r in night.ranked[name]])), 4)
        for name in nights[0].ranked
    }


def report(ranker: Ranker, nights: list[Night]) -> None:
    """The table and the JSON line."""
    names, questions = list(nights[0].ranked), held(ranker, nights)
    lists = {name: [r for night in nights for r in night.ranked[name]] for name in names}
    values = {name: questions.values(lists[name]) for name in names}
    mean = questions.interval(values["reshelve"])
    # Paired, question by question.
    differences = {
        ours: {
            other: questions.compare(other, values[ours], values[other]).difference
            for other in names[names.index(ours) + 1 :]
        }
        for ours in _OURS
        if ours in names
    }
    show(ranker, nights, differences)
    document = {
        "benchmark": "quality", "ranker": ranker.name, "metric": ranker.gates.metric,
        "days": [str(night.day) for night in nights], "questions": float(questions.weights.sum()),
        "value": mean.value, "low": mean.low, "high": mean.high,
        "metrics": {name: questions.all_metrics(lists[name]) for name in names},
        "differences": {name: vars(of) for name, of in differences["reshelve"].items()},
        "network_differences": {n: vars(of) for n, of in differences.get(quality_peer.NETWORK, {}).items()},
        "nights": [
            {"day": str(n.day), **summary(ranker, [n]), "seconds": n.seconds, "peak_mib": n.peak_mib}
            for n in nights
        ],
    }  # fmt: skip
    print(json.dumps(document))


def show(ranker: Ranker, nights: list[Night], differences: dict[str, dict[str, Interval]]) -> None:
    """The table: a row for each night, one for all of them, and what each of ours is ahead by."""
    names = list(nights[0].ranked)
    costs = [name for name in ("train", "blend", quality_peer.LIGHTGBM) if name in nights[0].seconds]
    table = Table(
        "day", "questions", *names, *(f"{name} s" for name in costs), "peak MiB",
        title=f"{ranker.name}: {ranker.gates.metric}",
    )  # fmt: skip
    for shown in [*([night] for night in nights), nights]:
        row = summary(ranker, shown)
        weight = sum(query.weight for night in shown for query in night.queries)
        spent = [f"{sum(night.seconds[name] for night in shown):.0f}" for name in costs]
        peak = max(night.peak_mib for night in shown)
        table.add_row(
            str(shown[0].day) if shown is not nights else "all", f"{weight:.0f}",
            *(f"{row[name]:.4f}" for name in names), *spent, str(peak),
            style="bold" if shown is nights else None,
        )  # fmt: skip
    console = Console(width=_WIDTH)
    console.print(table)
    for ours, rivals in differences.items():
        told = (f"{name} {of.value:+.4f} ({of.low:+.4f} to {of.high:+.4f})" for name, of in rivals.items())
        console.print(f"{ours} minus " + " · ".join(told), highlight=False, soft_wrap=True)
    if ranker.kind is Kind.SEARCH and quality_peer.LIGHTGBM not in names:
        console.print(quality_peer.LEFT_OUT, highlight=False)
