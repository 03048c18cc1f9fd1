"""One night of bench_quality: the product's own stages up to a day, and how each ranker orders that day's questions.

    python benchmarks/quality_night.py --ranker search --day 2011-09-26 --file night.parquet [--served]

bench_quality runs it, a process for every night: TensorFlow keeps each graph until its process ends. What it hands back is
one Parquet file, written last: a row per question with a ranked list of each ranker, and what the night cost.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import quality_peer

from reshelve.clickstream.remember import EVERYTHING
from reshelve.errors import ReshelveError
from reshelve.evaluation.baseline_ranking import Baselines
from reshelve.evaluation.scoring import RankedAnswers
from reshelve.examples.catalogue import Catalogue
from reshelve.examples.event_counts import EventCounts
from reshelve.examples.formats import HOLDOUT, HoldoutQuery, read_holdout, write_rows
from reshelve.kind_registry import kind_of
from reshelve.lineage.run import Run, run_stage
from reshelve.logs import configure_logs
from reshelve.pipeline.references import load_ranker

Lists = list[list[str]]
_BATCH = 32
_LIST = "ranked by "  # begins the name of a ranker's column
_SCORES = "scores of reshelve"
_MIB = 1024  # KiB, the unit of getrusage on Linux


@dataclass(frozen=True)
class Night:
    """One day's questions, the lists of each ranker (`reshelve` first), and what it cost.

    `peak_mib`: the most memory that one of the night's processes had, in MiB. `scores` are those of `reshelve`'s lists.
    """

    day: date
    queries: list[HoldoutQuery]
    ranked: dict[str, Lists]
    scores: list[list[float]]
    seconds: dict[str, float]
    peak_mib: int

    def write(self, path: Path) -> None:
        """As one Parquet file, which appears when it is whole."""
        cost = {"day": str(self.day), "seconds": self.seconds, "peak_mib": self.peak_mib}
        columns = [pa.field(_LIST + name, pa.list_(pa.string())) for name in self.ranked]
        columns.append(pa.field(_SCORES, pa.list_(pa.float64())))
        schema = pa.schema([*HOLDOUT, *columns], metadata={"night": json.dumps(cost)})
        rows = (
            query.row()
            | {_LIST + name: lists[number] for name, lists in self.ranked.items()}
            | {_SCORES: self.scores[number]}
            for number, query in enumerate(self.queries)
        )
        write_rows(path, schema, rows)

    @classmethod
    def read(cls, path: Path) -> Night:
        """What `write` wrote."""
        table = pq.read_table(path)
        cost = json.loads(table.schema.metadata[b"night"])
        names = [name.removeprefix(_LIST) for name in table.column_names if name.startswith(_LIST)]
        return cls(
            date.fromisoformat(cost["day"]),
            [HoldoutQuery(**row) for row in table.select(HOLDOUT.names).to_pylist()],
            {name: table[_LIST + name].to_pylist() for name in names},
            table[_SCORES].to_pylist(),
            cost["seconds"],
            cost["peak_mib"],
        )


def main() -> None:
    """Run the night that the command line names."""
    configure_logs()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ranker", required=True, help="a file in include/rankers/, without .yaml")
    parser.add_argument("--day", type=date.fromisoformat, required=True, help="YYYY-MM-DD")
    parser.add_argument("--file", type=Path, required=True, help="what to write: appears when it is whole")
    parser.add_argument("--values", type=json.loads, default={}, help="ranker keys to override, as JSON")
    parser.add_argument("--served", action="store_true", help="compress, package and ask the model server")
    options = parser.parse_args()
    try:
        run = Run.of(load_ranker(options.ranker, options.values), options.day)
        run_night(run, options.served).write(options.file)
    except ReshelveError as error:
        print(f"reshelve: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error


def night_file(run: Run, served: bool) -> Path:
    """Where a night is kept: of this ranker file, this code, these options and the peers at hand, and no other."""
    digest = hashlib.sha256(json.dumps([served, quality_peer.version()]).encode())
    for source in (__file__, quality_peer.__file__):
        digest.update(Path(source).read_bytes())
    return run.work / run.id / f"quality-{digest.hexdigest()[:12]}.parquet"


def run_night(run: Run, served: bool) -> Night:
    """The stages of one night, then every ranker on the day's questions."""
    kind = run.ranker.kind
    seconds = {name: run_stage(run, name, work)["seconds"] for name, work in stages(kind, served)}
    examples = run.stage("examples").files()
    queries = read_holdout(examples / "holdout.parquet")
    catalogue = Catalogue.read(examples / "catalogue.parquet")
    began = time.monotonic()
    answered = answers(run, queries, catalogue, served)
    ranked = {"reshelve": answered.ranked}
    seconds["ranking"] = round(time.monotonic() - began, 1)
    if served:
        ranked["float"] = answers(run, queries, catalogue, served=False).ranked
    if kind == "search":
        for name, (lists, took) in quality_peer.answers(run, queries, catalogue).items():
            ranked[name], seconds[name] = lists, took
    ranked |= baselines(run, queries, catalogue)
    # The largest of its processes, this one and those that it waited for: training runs in its own.
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return Night(run.partition, queries, ranked, answered.scores, seconds, round(peak / _MIB))


def stages(kind: str, served: bool) -> Iterator[tuple[str, Callable[[Run], dict[str, Any]]]]:
    """The stages that a figure needs, in order."""
    from reshelve.examples.build import build_examples
    from reshelve.training.launch import train

    yield "examples", build_examples
    yield "train", train
    if kind == "search":
        from reshelve.kinds.search.blend_stage import blend

        yield "blend", blend
    if served:
        from reshelve.compression.compress import compress
        from reshelve.export.package import package

        yield "compress", compress
        yield "package", package


def baselines(run: Run, queries: list[HoldoutQuery], catalogue: Catalogue) -> dict[str, Lists]:
    """The lists of each baseline."""
    labels = {str(name): weight for name, weight in run.ranker.data.events.items()}
    events, depth = run.stage("examples").files() / "events.parquet", run.ranker.release.top
    with tempfile.TemporaryDirectory() as spill:
        begins = date.fromisoformat(run.stage("examples").required()["holdout_begins"])
        found = Baselines(
            EventCounts(events, catalogue, labels, begins, Path(spill), EVERYTHING),
            run.ranker.kind,
            run.ranker.examples.repeat,
        )
        return {name: [found.rank(name, query, depth) for query in queries] for name in found.names}


def answers(run: Run, queries: list[HoldoutQuery], catalogue: Catalogue, served: bool) -> RankedAnswers:
    """The ranked items of each question, best first, with their scores."""
    kind, name = run.ranker.kind, run.ranker.name
    if served:
        from reshelve.client.client import RankingClient
        from reshelve.evaluation.scoring import ServedModel, catalogue_of
        from reshelve.modelserver.local_server import running_model_server

        version = run.stage("package").files() / "version"
        with running_model_server({name: version}) as addresses, RankingClient(addresses.grpc) as client:
            return ServedModel(client, name, kind, catalogue_of(version)).answer(queries)
    import tensorflow as tf

    from reshelve.evaluation.scoring import order
    from reshelve.export.layers import FloatLayers
    from reshelve.export.version import VersionBuilder
    from reshelve.model.trained import TrainedModel

    model = TrainedModel.load(run.stage("train").files())
    builder = VersionBuilder(run)
    items, top = builder.catalogue, run.ranker.release.top
    module = builder.module(model, FloatLayers(model))
    found, scores = Lists(), list[list[float]]()
    if kind == "pair":
        for query in queries:
            inputs = {"query": tf.constant([query.text]), "item": tf.constant(query.candidates)}
            given = module.serving_default(**inputs)["score"].numpy().tolist()
            of_item = dict(zip(query.candidates, given, strict=True))
            found.append(order(query.candidates, given, frozenset(items.items)))
            scores.append([of_item[item] for item in found[-1]])
        return RankedAnswers(found, scores, 0)
    for start in range(0, len(queries), _BATCH):
        batch = queries[start : start + _BATCH]
        asked = kind_of(kind).requests.of_questions(batch, len(batch))
        texts = {name: tf.constant(given) for name, given in asked.items()}
        likely = tf.nn.softmax(module.logits(**texts)["logits"]).numpy()
        best = np.argsort(-likely, axis=1, kind="stable")[:, :top]
        found += [[items.items[place] for place in row] for row in best]
        scores += np.take_along_axis(likely, best, axis=1).tolist()
    return RankedAnswers(found, scores, 0)


if __name__ == "__main__":
    main()
