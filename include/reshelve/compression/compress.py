"""The compress stage: the ranker file's steps in order, each kept only where its packaged bytes prove faster and as good.

Steps learn from training examples and choose on validation examples; the verdict is spoken on held-out questions that
neither has seen. Where a step is dropped, the next one starts from what was there before it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

from reshelve.compression.bf16 import bf16
from reshelve.compression.context import Context
from reshelve.compression.distil import distil
from reshelve.compression.low_rank import low_rank
from reshelve.compression.measured_step import judge, shown, verdict
from reshelve.compression.prune import prune
from reshelve.compression.rounding import int8
from reshelve.export.candidate import Candidate
from reshelve.lineage.run import Run
from reshelve.logs import logger
from reshelve.model.trained import TrainedModel

STEPS: dict[str, Callable[[Any, Candidate, Context], Candidate]] = {
    "distil": distil,
    "prune": prune,
    "low_rank": low_rank,
    "int8": int8,
    "bf16": bf16,
}


def compress(run: Run) -> dict[str, Any]:
    """Write `compression.json`, and the weights that it speaks of; the result tells each step's figures and why it stayed."""
    log = logger(stage="compress")
    directory = run.stage("compress").directory
    settings = run.ranker.compression
    train, examples = run.stage("train").files(), run.stage("examples").files()
    context = Context(run, train, examples, directory / ".scratch")
    context.scratch.mkdir(exist_ok=True)
    kept = Candidate(TrainedModel.load(train))
    steps: list[dict[str, Any]] = []
    for step in settings.steps:
        log.info("step", step=step.step)
        candidate = STEPS[step.step](step, kept, context)
        found = judge(kept, candidate, context)
        stays, reason = verdict(step.criterion, found, settings.min_agreement, settings.tolerance)
        log.info("judged", step=step.step, kept=stays, reason=reason)
        entry = {"step": step.step, "kept": stays, "reason": reason, **candidate.about}
        steps.append(entry | shown(found, run.ranker.kind))
        kept = candidate if stays else kept
    document = kept.save(directory)
    shutil.rmtree(context.scratch)
    return {"steps": steps, "precision": document.precision, "reshaped": document.reshaped}
