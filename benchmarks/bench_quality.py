"""A ranker file, night by night: train on what came before each day, rank that day's questions, never see the future.

    python benchmarks/bench_quality.py --ranker search --from 2011-09-26 --to 2011-10-09 [--data DIR] [--served]

The directory (RESHELVE_DATA, or --data) and the ranker file are all it needs. Each night runs the product's own stages
on a store of its own; the day itself is the held-out partition, every one of its questions is asked. Ranked is the float
graph of the SavedModel; with --served, the quantized package behind the model server. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from rich.console import Console
from rich.table import Table

from reshelve.evaluation.baselines import BASELINES, Baselines
from reshelve.evaluation.comparison import HeldOut
from reshelve.evaluation.metrics import Metric, reported
from reshelve.examples.catalogue import Catalogue
from reshelve.examples.formats import HoldoutQuery, read_holdout
from reshelve.examples.past import Past
from reshelve.lineage import Run, run_stage
from reshelve.logs import configure_logs
from reshelve.platform import seaweedfs
from reshelve.processes import free_port, stop_group
from reshelve.rankers import Kind, Ranker, load_ranker
from reshelve.settings import settings
from reshelve.store.objects import object_store

Lists = list[list[str]]
_ALL = 1_000_000  # questions: every one of the day
_BATCH = 32


@dataclass(frozen=True)
class Night:
    """One day's questions, the lists of each ranker, and what it cost."""

    day: date
    queries: list[HoldoutQuery]
    ranked: dict[str, Lists]
    seconds: dict[str, float]


def main() -> None:
    """Run the nights and print what they gave."""
    options = arguments()
    configure_logs()
    if options.data:
        os.environ["RESHELVE_DATA"] = str(Path(options.data).resolve())
    with store(options.home):
        values = {"gates.max_queries": _ALL, "search.trials": 0}
        values |= dict(pair.split("=", 1) for pair in options.set or [])
        ranker = load_ranker(options.ranker, values)
        land_and_validate(ranker, options.first, options.last)
        nights = []
        for day in days(options.first, options.last):
            night = run_night(ranker, day, served=options.served)
            if night is not None:
                nights.append(night)
                Console(stderr=True).print(f"{day}: {summary(ranker, [night])}", highlight=False)
    report(ranker, nights)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ranker", required=True, help="a file in include/rankers/, without .yaml")
    parser.add_argument(
        "--from", dest="first", type=date.fromisoformat, required=True, help="first day, YYYY-MM-DD"
    )
    parser.add_argument(
        "--to", dest="last", type=date.fromisoformat, required=True, help="last day, included"
    )
    parser.add_argument("--data", help="the directory of raw data (default: RESHELVE_DATA)")
    parser.add_argument(
        "--home", help="keep the store here, so that a second run resumes (default: thrown away)"
    )
    parser.add_argument("--served", action="store_true", help="compress, package and ask the model server")
    parser.add_argument("--set", action="append", help="override a ranker key: training.max_minutes=2")
    return parser.parse_args()


@contextmanager
def store(home: str | None) -> Iterator[None]:
    """An object store of this run, and the settings that reach it."""
    with tempfile.TemporaryDirectory(prefix="reshelve-quality-") as scratch:
        directory = Path(home or scratch).resolve()
        directory.mkdir(parents=True, exist_ok=True)
        port = free_port()
        process = seaweedfs.start_seaweedfs(directory / "store", port, directory / "store.log")
        os.environ |= seaweedfs.environment(port, seaweedfs.credentials(directory / "store"))
        os.environ |= {"RESHELVE_HOME": str(directory / "home"), "RESHELVE_BUCKET": "quality"}
        settings.cache_clear()
        try:
            object_store().create_bucket()
            yield
        finally:
            stop_group(process.pid)


def days(first: date, last: date) -> list[date]:
    """All of them, both included."""
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]


def land_and_validate(ranker: Ranker, first: date, last: date) -> None:
    """Every day of the first night's window, up to the last day."""
    from reshelve.clickstream.landing import land
    from reshelve.clickstream.validation import validate_range

    begin = first - timedelta(days=ranker.data.window_days - 1)
    land(ranker.data.source, begin, last)
    validate_range(ranker.data.source, begin, last)


def run_night(ranker: Ranker, day: date, served: bool) -> Night | None:
    """The stages of one night, None where the shop was closed."""
    run = Run.of(ranker, day)
    if not object_store().exists(f"clickstream/{ranker.data.source}/dt={day}/part-0.parquet"):
        return None
    seconds = {name: run_stage(run, name, work)["seconds"] for name, work in stages(ranker.kind, served)}
    examples = run.stage("examples").files()
    queries = read_holdout(examples / "holdout.parquet")
    catalogue = Catalogue.read(examples / "catalogue.parquet")
    labels = {str(name): weight for name, weight in ranker.data.events.items()}
    with tempfile.TemporaryDirectory() as spill:
        past = Past(examples / "events.parquet", catalogue, labels, day, Path(spill))
        baselines = Baselines(past, ranker.kind)
        ranked = {
            name: [baselines.rank(name, query, ranker.release.top) for query in queries] for name in BASELINES
        }
    began = time.monotonic()
    ranked["reshelve"] = answers(run, queries, catalogue, served)
    return Night(day, queries, ranked, {**seconds, "ranking": round(time.monotonic() - began, 1)})


def stages(kind: Kind, served: bool) -> Iterator[tuple[str, Callable[[Run], dict[str, Any]]]]:
    """The stages that a figure needs, in order."""
    from reshelve.examples.build import build_examples
    from reshelve.training.launch import train

    yield "examples", build_examples
    yield "train", train
    if kind is Kind.SEARCH:
        from reshelve.memory.stage import blend

        yield "blend", blend
    if served:
        from reshelve.compression.compress import compress
        from reshelve.packaging.package import package

        yield "compress", compress
        yield "package", package


def answers(run: Run, queries: list[HoldoutQuery], catalogue: Catalogue, served: bool) -> Lists:
    """The ranked items of each question, best first."""
    kind, name = run.ranker.kind, run.ranker.name
    if served:
        from reshelve.evaluation.scoring import ServedModel, catalogue_of
        from reshelve.serving.client import RankingClient
        from reshelve.serving.local_server import running_model_server

        version = run.stage("package").files() / "version"
        with running_model_server({name: version}) as addresses, RankingClient(addresses.grpc) as client:
            return ServedModel(client, name, kind, catalogue_of(version)).answer(queries).ranked
    import tensorflow as tf

    from reshelve.evaluation.scoring import order
    from reshelve.packaging import signatures
    from reshelve.packaging.catalogue import Catalogue as PackagedCatalogue
    from reshelve.packaging.graph import FloatLayers
    from reshelve.packaging.trained import TrainedModel

    train, examples = run.stage("train").files(), run.stage("examples").files()
    model = TrainedModel.load(train)
    blend = run.stage("blend").files() if kind is Kind.SEARCH else None
    items = PackagedCatalogue.load(examples / "catalogue.parquet")
    module = signatures.ranker_module(
        model, FloatLayers(model), train / "tokenizer.json", items, run.ranker.release.top, blend
    )
    found: Lists = []
    if not kind.over_catalogue:
        for query in queries:
            inputs = {"query": tf.constant([query.text]), "item": tf.constant(query.candidates)}
            found.append(
                order(query.candidates, module.logits(**inputs)["logits"].numpy(), frozenset(items.items))
            )
        return found
    for start in range(0, len(queries), _BATCH):
        texts = tf.constant([query.text for query in queries[start : start + _BATCH]])
        logits = module.logits(**{kind.text_input: texts})["logits"].numpy()
        best = np.argsort(-logits, axis=1, kind="stable")[:, : run.ranker.release.top]
        found += [[items.items[place] for place in row] for row in best]
    return found


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
        for name in ("reshelve", *BASELINES)
    }


def report(ranker: Ranker, nights: list[Night]) -> None:
    """The table and the JSON line."""
    if not nights:
        raise SystemExit("no partition between the two days")
    names = ("reshelve", *BASELINES)
    table = Table(
        "day", "questions", *names, "train s", "blend s", title=f"{ranker.name}: {ranker.gates.metric}"
    )
    for night in nights:
        row = summary(ranker, [night])
        weight = sum(query.weight for query in night.queries)
        costs = [f"{night.seconds.get(name, 0):.0f}" for name in ("train", "blend")]
        table.add_row(str(night.day), f"{weight:.0f}", *(f"{row[name]:.4f}" for name in names), *costs)
    questions = held(ranker, nights)
    lists = {name: [r for night in nights for r in night.ranked[name]] for name in names}
    values = {name: questions.values(lists[name]) for name in names}
    mean = questions.interval(values["reshelve"])
    total = {name: f"{questions.mean(values[name]):.4f}" for name in names}
    table.add_row("all", f"{questions.weights.sum():.0f}", *total.values(), "", "", style="bold")
    Console(width=120).print(table)
    document = {
        "benchmark": "quality", "ranker": ranker.name, "metric": ranker.gates.metric,
        "days": [str(night.day) for night in nights], "questions": float(questions.weights.sum()),
        "value": mean.value, "low": mean.low, "high": mean.high,
        "metrics": {name: questions.all_metrics(lists[name]) for name in names},
        "differences": {
            name: vars(questions.compare(name, values["reshelve"], values[name]).difference) for name in BASELINES
        },
        "nights": [{"day": str(n.day), **summary(ranker, [n]), "seconds": n.seconds} for n in nights],
    }  # fmt: skip
    print(json.dumps(document))


if __name__ == "__main__":
    main()
