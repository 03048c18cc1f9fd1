"""Verbs of a night: one for each stage, in order."""

from __future__ import annotations

from typing import Annotated

import typer

from reshelve.kind_registry import kind_names, kind_of
from reshelve.verbs.options import (
    AsJson,
    Base,
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
def begin(
    ranker: RankerName,
    partition: Partition,
    values: Values = None,
    base: Base = None,
    as_json: AsJson = False,
) -> None:
    """Pin a night: stages started with its `--run` id use the ranker file and code of this moment, whatever changes later."""
    run = run_of(ranker, partition, values, base=base)
    found = call("reshelve.pipeline.pinned_night:begin", run, overrides(values, base))
    show(found, as_json, f"begin: {run.id}")


_stage(
    "examples",
    "reshelve.examples.build:build_examples",
    "Turn validated partitions into tokenised training examples, split by time.",
)


tune_app = typer.Typer(
    help="Tune hyperparameters with Hyperopt: run, or ask, evaluate and tell.", no_args_is_help=True
)
app.add_typer(tune_app, name="tune")


_stage(
    "tune",
    "reshelve.tuning.tune:tune",
    "Tune in this process: ask, evaluate and tell until the budget is spent.",
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
    """The next trials to evaluate: {"trials": [0, 1], …}; an empty list once tuning is over."""
    run = run_of(ranker, partition, values, begun)
    call("reshelve.pipeline.reuse:take_over", run, "tune")
    show(call("reshelve.tuning.tune:ask", run), as_json)


@tune_app.command("evaluate")
def tune_evaluate(
    ranker: RankerName,
    partition: Partition,
    trial: Annotated[int, typer.Option("--trial", help="An id returned by `ask`.", min=0)],
    values: Values = None,
    begun: Begun = None,
    as_json: AsJson = False,
) -> None:
    """Train one trial for its budget and record its loss."""
    run = run_of(ranker, partition, values, begun)
    show(call("reshelve.tuning.tune:evaluate", run, trial), as_json, f"trial {trial}: {run.id}")


_stage(
    "tune",
    "reshelve.tuning.tune:tell",
    "End tuning with the trials evaluated so far: the best values, for training.",
    name="tell",
    of=tune_app,
)


_stage(
    "train",
    "reshelve.training.launch:train",
    "Fine-tune the pretrained transformer under horovodrun; resumes from its last checkpoint.",
)


for kind in kind_names():
    for own in kind_of(kind).stages:
        _stage(own.name, own.work, own.does)


_stage(
    "compress",
    "reshelve.compression.compress:compress",
    "Try the ranker file's compression steps; keep those that are measurably faster and as accurate.",
)


_stage(
    "package",
    "reshelve.export.package:package",
    "Build a SavedModel that takes strings, with warm-up requests.",
)


_stage(
    "gate",
    "reshelve.evaluation.gate:gate",
    "Evaluate the packaged version against the baselines and the champion: promote, hold or reject.",
)


_stage(
    "publish",
    "reshelve.pipeline.publish:publish",
    "Publish the packaged version on S3 under the next number; it exists once its manifest, "
    "written last, is there.",
)


@app.command()
def report(
    ranker: RankerName,
    partition: Partition,
    values: Values = None,
    begun: Begun = None,
    as_json: AsJson = False,
) -> None:
    """Build the night's report from the finished stages: one HTML file, stored with the run on S3."""
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
    base: Base = None,
    begun: Begun = None,
    as_json: AsJson = False,
) -> None:
    """Show what a night would do and reuse, with its time and cost estimated from past nights; writes nothing."""
    run = run_of(ranker, partition, values, begun, base)
    show(call("reshelve.pipeline.plan:plan", run), as_json, f"plan: {run.id}")
