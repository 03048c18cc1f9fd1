"""Verbs of a night: one for each stage, in order."""

from __future__ import annotations

from typing import Annotated

import typer

from reshelve.verbs.options import (
    AsJson,
    Begun,
    Partition,
    RankerName,
    Values,
    call,
    overrides,
    run_of,
    run_verb,
    show,
)

app = typer.Typer()


def _stage(stage: str, work: str, does: str, name: str = "", of: typer.Typer = app) -> None:
    """Add a verb that does a stage of a run (`module:function`), unless it is done, and shows its result."""

    def verb(
        ranker: RankerName,
        partition: Partition,
        values: Values = None,
        begun: Begun = None,
        as_json: AsJson = False,
    ) -> None:
        run_verb(stage, work, ranker, partition, values, begun, as_json)

    of.command(name or stage, help=does)(verb)


@app.command()
def begin(ranker: RankerName, partition: Partition, values: Values = None, as_json: AsJson = False) -> None:
    """Pin a night: with `--run` its stages read the ranker file, and run the code, of now, whatever changes meanwhile."""
    run = run_of(ranker, partition, values)
    show(call("reshelve.pinned_night:begin", run, overrides(values)), as_json, f"begin: {run.id}")


_stage(
    "examples",
    "reshelve.examples.build:build_examples",
    "Turn validated partitions into tokenised training examples, split by time.",
)


tune_app = typer.Typer(
    help="Search hyperparameters with Hyperopt: run, or ask, evaluate and tell.", no_args_is_help=True
)
app.add_typer(tune_app, name="tune")


_stage(
    "tune",
    "reshelve.tuning.search:search",
    "The whole search in this process: ask, evaluate and tell until the budget is spent.",
    name="run",
    of=tune_app,
)


@tune_app.command("ask")
def tune_ask(
    ranker: RankerName,
    partition: Partition,
    values: Values = None,
    begun: Begun = None,
    as_json: AsJson = False,
) -> None:
    """The next trials to evaluate: {"trials": [0, 1], …}; an empty list when the search is over."""
    show(call("reshelve.tuning.search:ask", run_of(ranker, partition, values, begun)), as_json)


@tune_app.command("evaluate")
def tune_evaluate(
    ranker: RankerName,
    partition: Partition,
    trial: Annotated[int, typer.Option("--trial", help="An id given by ask.", min=0)],
    values: Values = None,
    begun: Begun = None,
    as_json: AsJson = False,
) -> None:
    """Train one trial on its budget and record its loss."""
    run = run_of(ranker, partition, values, begun)
    show(call("reshelve.tuning.search:evaluate", run, trial), as_json, f"trial {trial}: {run.id}")


_stage(
    "tune",
    "reshelve.tuning.search:tell",
    "Close the search with the trials evaluated so far: the best values, for train.",
    name="tell",
    of=tune_app,
)


_stage(
    "train",
    "reshelve.training.launch:train",
    "Fine-tune the pretrained transformer under horovodrun; resumes from its last checkpoint.",
)


_stage(
    "blend",
    "reshelve.memory.stage:blend",
    "Search rankers: weigh what the shop remembers of its searches and what the transformer reads.",
)


_stage(
    "compress",
    "reshelve.compression.compress:compress",
    "Quantize the trained model, and say what it cost in agreement.",
)


_stage(
    "package",
    "reshelve.packaging.package:package",
    "Build the SavedModel that takes strings, with its warm-up requests.",
)


_stage(
    "gate",
    "reshelve.evaluation.gate:gate",
    "Judge the packaged bytes beside baselines and champion: promote, hold or reject.",
)


_stage(
    "publish",
    "reshelve.store.versions:publish",
    "Put the packaged version on S3 under the next integer; its manifest, written last, makes it exist.",
)


@app.command()
def report(
    ranker: RankerName,
    partition: Partition,
    values: Values = None,
    begun: Begun = None,
    as_json: AsJson = False,
) -> None:
    """Make the night's report, one HTML file beside the run on S3, of whatever is done."""
    run = run_of(ranker, partition, values, begun)
    show(call("reshelve.reporting.report:report", run), as_json, f"report: {run.id}")


@app.command()
def track(
    ranker: RankerName,
    partition: Partition,
    values: Values = None,
    begun: Begun = None,
    as_json: AsJson = False,
) -> None:
    """Send the night to MLflow (RESHELVE_MLFLOW_TRACKING_URI): settings, figures, trials, report and version."""
    run = run_of(ranker, partition, values, begun)
    show(call("reshelve.tracking.night:track", run), as_json, f"track: {run.id}")


@app.command()
def plan(
    ranker: RankerName,
    partition: Partition,
    values: Values = None,
    begun: Begun = None,
    as_json: AsJson = False,
) -> None:
    """What a night would do, what it would reuse, its minutes and cost from past nights; writes nothing."""
    run = run_of(ranker, partition, values, begun)
    show(call("reshelve.planning.plan:plan", run), as_json, f"plan: {run.id}")
