"""The gate: is the packaged version better than the baselines, and no worse than what serves?

It loads the very bytes to be shipped into a model server, asks them the held-out questions, and compares on the
same questions, pair by pair. The rules are in `verdict.py`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reshelve.client.client import RankingClient
from reshelve.config.ranker import Ranker
from reshelve.deployments.deployment_log import read_pointer
from reshelve.errors import DataError
from reshelve.evaluation.baseline_ranking import Baselines
from reshelve.evaluation.comparison import HeldOut
from reshelve.evaluation.judgement import CHALLENGER, CHAMPION, Evidence, judge
from reshelve.evaluation.metrics import Metric, reported
from reshelve.evaluation.scoring import RankedAnswers, ServedModel, answers_as, catalogue_of
from reshelve.evaluation.shelves import Shelf, example_shelves, write_shelves
from reshelve.evaluation.slices import Familiarity
from reshelve.examples.catalogue import Catalogue
from reshelve.examples.common_queries import common_queries
from reshelve.examples.event_counts import EventCounts
from reshelve.examples.formats import HoldoutQuery, read_holdout
from reshelve.examples.readers import for_gate
from reshelve.kind_registry import kind_of
from reshelve.lineage.results import ExamplesResult, PackageResult
from reshelve.lineage.run import Run
from reshelve.logs import logger
from reshelve.modelserver.local_server import running_model_server
from reshelve.progress import counted
from reshelve.store.versions import download_version, partition_of, sign_result


def gate(run: Run) -> dict[str, Any]:
    """Judge the run's packaged version; writes report.json, the same as the result."""
    ranker = run.ranker
    metric = Metric.parse(ranker.gates.metric)
    examples, version = run.stage("examples").files(), run.stage("package").files() / "version"
    metrics = reported(metric, whole_lists=kind_of(ranker.kind).evaluation.whole_lists)
    drawn = read_holdout(examples / "holdout.parquet")
    held = HeldOut(for_gate(drawn, ranker), metrics, ranker.training.seed)
    _warn_of_lists(held)
    if not held.weights.any():
        raise DataError(
            f"no held-out question of {ranker.name} can tell a better order from a worse one",
            f"expected questions with a choice and another candidate, or with three judged items, among the {len(held.queries)} of "
            f"{len(drawn)} that are the gate's",
        )
    directory = run.stage("gate").directory
    scratch = directory / ".scratch"
    scratch.mkdir(exist_ok=True)
    champion_version = _champion(run)
    versions = {CHALLENGER: version}
    if champion_version is not None and partition_of(champion_version) <= run.partition:
        versions[CHAMPION] = _downloaded(run, champion_version, scratch)
        if answers_as(versions[CHAMPION]) != ranker.kind:  # it answers other questions
            del versions[CHAMPION]
            champion_version = None
    answers = ask(versions, ranker.kind, held.queries)
    past = _past(run, examples)
    evidence = Evidence(
        held=held,
        answers=answers,
        baselines=rank_by_baselines(ranker, past, held.queries),
        known=Familiarity.of(past, held.queries, ranker.kind),
        catalogue=past.catalogue,
        champion=champion_version,
        candidates=run.stage("package").require(PackageResult).candidates,
    )
    result = judge(ranker, evidence)
    result["holdout_partitions"] = list(run.stage("examples").require(ExamplesResult).holdout_partitions)
    result = sign_result(
        ranker.name, version, result
    )  # these very bytes: nobody else's are published with it
    (directory / "report.json").write_text(json.dumps(result, indent=1, sort_keys=True))
    write_shelves(directory, _shelves(ranker, evidence, examples))
    shutil.rmtree(scratch)
    logger(stage="gate", run=run.id).info(
        "judged", verdict=result["verdict"], metric=str(metric), value=round(result["challenger"]["value"], 4)
    )
    return result


def _warn_of_lists(held: HeldOut) -> None:
    """Say where questions cannot count: whoever reads a figure should know what it is over."""
    single = sum(len(query.candidates) == 1 for query in held.queries)
    unordered = int((held.weights == 0).sum())
    if single:
        logger(stage="gate").warning(
            "lists of one item cannot be ranked; they are left out of the metrics",
            lists=single, questions=len(held.queries), left_out=unordered,
        )  # fmt: skip


def _champion(run: Run) -> int | None:
    pointer = read_pointer(run.store, run.ranker.name)
    return None if pointer is None else pointer.stable


def _downloaded(run: Run, version: int, scratch: Path) -> Path:
    directory = scratch / "champion" / str(version)
    directory.parent.mkdir(parents=True, exist_ok=True)
    download_version(run.store, run.ranker.name, version, directory)
    return directory


def ask(versions: dict[str, Path], kind: str, queries: Sequence[HoldoutQuery]) -> dict[str, RankedAnswers]:
    """Load every version into one model server and put the same questions to each."""
    log = logger(stage="gate")
    answers = {}
    log.info("loading into a model server", servables=list(versions))
    with running_model_server(versions) as addresses, RankingClient(addresses.grpc) as client:
        for name, directory in versions.items():
            answers[name] = ServedModel(client, name, kind, catalogue_of(directory)).answer(queries)
            log.info("answered", servable=name, queries=len(queries))
    return answers


def _shelves(ranker: Ranker, evidence: Evidence, examples: Path) -> list[Shelf]:
    """What a person who approves sees: questions that say nothing of one customer, with both answers."""
    queries, catalogue = evidence.held.queries, evidence.catalogue
    shown = kind_of(ranker.kind).may_show_text(ranker)
    champion = evidence.answers.get(CHAMPION)
    return example_shelves(
        [query.text for query in queries],
        [query.relevant for query in queries],
        evidence.answers[CHALLENGER].ranked,
        None if champion is None else champion.ranked,
        dict(zip(catalogue.items, catalogue.titles, strict=True)),
        None if shown else frozenset(common_queries(examples, ranker.remember)),
    )


def _past(run: Run, examples: Path) -> EventCounts:
    labels = {str(name): weight for name, weight in run.ranker.data.events.items()}
    begins = run.stage("examples").require(ExamplesResult).begins
    spill = run.stage("gate").directory / ".scratch" / "spill"
    catalogue = Catalogue.read(examples / "catalogue.parquet")
    return EventCounts(examples / "events.parquet", catalogue, labels, begins, spill, run.ranker.remember)


def rank_by_baselines(
    ranker: Ranker, past: EventCounts, queries: Sequence[HoldoutQuery]
) -> dict[str, list[list[str]]]:
    """As deep as the model's own answers: the whole list, or the top of the catalogue."""
    baselines = Baselines(past, ranker.kind, ranker.examples.repeat)
    log = logger(stage="gate")
    return {
        name: [
            baselines.rank(name, query, len(query.candidates) or ranker.release.top)
            for query in counted(queries, log, f"ranking by {name}", "queries")
        ]
        for name in baselines.names
    }
