"""The gate: is the packaged version better than the baselines, and no worse than what serves?

It loads the very bytes to be shipped into a model server, asks them the held-out questions, and compares on the
same questions, pair by pair. The rules are in `verdict.py`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from reshelve.errors import ConfigurationError
from reshelve.evaluation.baselines import BASELINES, Baselines
from reshelve.evaluation.bootstrap import Interval, bootstrap
from reshelve.evaluation.metrics import Metric, reported
from reshelve.evaluation.scoring import Answers, ServedModel, catalogue_of
from reshelve.evaluation.verdict import Champion, Comparison, decide
from reshelve.examples.catalogue import Catalogue
from reshelve.examples.formats import HoldoutQuery, read_holdout
from reshelve.examples.past import Past
from reshelve.lineage import Run
from reshelve.logs import logger
from reshelve.rankers import Kind, Ranker
from reshelve.serving.client import RankingClient
from reshelve.serving.local_server import running_model_server
from reshelve.store.deployments import read_pointer
from reshelve.store.versions import download_version, partition_of

_CHAMPION = "champion-of-the-gate"  # no ranker can have this name


@dataclass(frozen=True)
class Slice:
    """The held-out questions and the means to compare rankers on them."""

    queries: list[HoldoutQuery]
    metrics: list[Metric]
    seed: int

    def values(self, ranked: Sequence[Sequence[str]], metric: Metric) -> np.ndarray:
        """float64[Q]: the metric of each query."""
        pairs = zip(ranked, self.queries, strict=True)
        return np.array([metric.of(items, query.relevant) for items, query in pairs])

    def mean(self, values: np.ndarray) -> Interval:
        """Its weighted mean with the 95 % interval."""
        weights = [query.weight for query in self.queries]
        return bootstrap(values.tolist(), weights, [query.cluster for query in self.queries], self.seed)

    def compare(
        self, name: str, challenger: Sequence[Sequence[str]], rival: Sequence[Sequence[str]]
    ) -> Comparison:
        """Challenger minus rival, paired, in the gate's metric."""
        mine, theirs = self.values(challenger, self.metrics[0]), self.values(rival, self.metrics[0])
        return Comparison(name, self.mean(theirs).value, self.mean(mine - theirs))

    def all_metrics(self, ranked: Sequence[Sequence[str]]) -> dict[str, float]:
        """The gate's metric and those reported beside it."""
        return {str(metric): self.mean(self.values(ranked, metric)).value for metric in self.metrics}


def gate(run: Run) -> dict[str, Any]:
    """Judge the run's packaged version; writes report.json, the same as the result.

    Raises ConfigurationError where the metric looks deeper than an answer goes.
    """
    ranker = run.ranker
    metric = _metric(ranker)
    examples, version = run.stage("examples").files(), run.stage("package").files() / "version"
    held = Slice(read_holdout(examples / "holdout.parquet"), reported(metric), ranker.training.seed)
    directory = run.stage("gate").directory
    scratch = directory / ".scratch"
    scratch.mkdir(exist_ok=True)
    champion_version = _champion(run)
    fair = champion_version is not None and partition_of(champion_version) <= run.partition

    versions = {ranker.name: version}
    if champion_version is not None and fair:
        versions[_CHAMPION] = _downloaded(run, champion_version, scratch)
    answers = _ask(versions, ranker.kind, held.queries)
    challenger = answers[ranker.name].ranked

    ranked = _baselines(run, examples, held.queries, metric.k)
    baselines = {name: held.compare(name, challenger, lists) for name, lists in ranked.items()}
    champion = None
    if champion_version is not None:
        rival = answers.get(_CHAMPION)
        compared = held.compare("champion", challenger, rival.ranked) if rival else None
        champion = Champion(champion_version, compared)
        if rival:
            ranked["champion"] = rival.ranked
    decision = decide(
        metric=str(metric),
        baselines=[baselines[name] for name in ranker.gates.beats],
        champion=champion,
        tolerance=ranker.gates.champion_tolerance,
        broken=answers[ranker.name].broken,
    )
    result = {
        "verdict": decision.verdict.value,
        "reasons": decision.reasons,
        "metric": str(metric),
        "challenger": asdict(held.mean(held.values(challenger, metric))),
        "champion": _shown(champion),
        "baselines": {name: rival.value for name, rival in baselines.items()},
        "differences": {name: asdict(rival.difference) for name, rival in baselines.items()},
        "metrics": {
            name: held.all_metrics(lists) for name, lists in {"challenger": challenger, **ranked}.items()
        },
        "queries": len(held.queries),
        "clusters": len({query.cluster for query in held.queries}),
        "holdout_partitions": run.stage("examples").required()["holdout_partitions"],
    }
    (directory / "report.json").write_text(json.dumps(result, indent=1, sort_keys=True))
    shutil.rmtree(scratch)
    logger(stage="gate", run=run.id).info(
        "judged", verdict=result["verdict"], metric=str(metric), value=round(result["challenger"]["value"], 4)
    )
    return result


def _metric(ranker: Ranker) -> Metric:
    metric = Metric.parse(ranker.gates.metric)
    if ranker.kind is Kind.NEXT_ITEM and metric.k > ranker.release.top:
        raise ConfigurationError(
            f"ranker {ranker.name}: gates.metric {metric} looks deeper than an answer goes",
            f"expected release.top of at least {metric.k}, got {ranker.release.top}",
        )
    return metric


def _champion(run: Run) -> int | None:
    pointer = read_pointer(run.store, run.ranker.name)
    return None if pointer is None else pointer.stable


def _downloaded(run: Run, version: int, scratch: Path) -> Path:
    directory = scratch / "champion" / str(version)
    directory.parent.mkdir(parents=True, exist_ok=True)
    download_version(run.store, run.ranker.name, version, directory)
    return directory


def _ask(versions: dict[str, Path], kind: Kind, queries: Sequence[HoldoutQuery]) -> dict[str, Answers]:
    """Load every version into one model server and put the same questions to each."""
    log = logger(stage="gate")
    answers = {}
    log.info("loading into a model server", servables=list(versions))
    with running_model_server(versions) as addresses, RankingClient(addresses.grpc) as client:
        for name, directory in versions.items():
            answers[name] = ServedModel(client, name, kind, catalogue_of(directory)).answer(queries)
            log.info("answered", servable=name, queries=len(queries))
    return answers


def _baselines(
    run: Run, examples: Path, queries: Sequence[HoldoutQuery], depth: int
) -> dict[str, list[list[str]]]:
    labels = {str(name): weight for name, weight in run.ranker.data.events.items()}
    begins = date.fromisoformat(run.stage("examples").required()["holdout_partitions"][0])
    spill = run.stage("gate").directory / ".scratch" / "spill"
    past = Past(
        examples / "events.parquet", Catalogue.read(examples / "catalogue.parquet"), labels, begins, spill
    )
    baselines = Baselines(past, run.ranker.kind)
    return {name: [baselines.rank(name, query, depth) for query in queries] for name in BASELINES}


def _shown(champion: Champion | None) -> dict[str, Any] | None:
    if champion is None:
        return None
    compared = champion.comparison
    return {
        "version": champion.version,
        "value": compared.value if compared else None,
        "difference": compared.difference.value if compared else None,
        "difference_low": compared.difference.low if compared else None,
        "difference_high": compared.difference.high if compared else None,
    }
