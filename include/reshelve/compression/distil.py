"""A copy with fewer layers, trained on the night's own examples by what the model says of them."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace

import numpy as np

from reshelve.compression.context import Context
from reshelve.config.compression import Distil
from reshelve.errors import ConfigurationError
from reshelve.export.candidate import Candidate
from reshelve.model.trained import TrainedModel
from reshelve.training.launch import checked_base, run_job, threads_each, tuned
from reshelve.training.spec import training_spec


def distil(step: Distil, before: Candidate, context: Context) -> Candidate:
    """The trained copy; a stage that was cut off goes on from the training's checkpoint.

    Raises ConfigurationError where the copy would not have fewer layers.
    """
    run, model = context.run, before.model
    own = model.document.architecture.num_hidden_layers
    if step.layers >= own:
        raise ConfigurationError(
            f"compression.steps: distil to {step.layers} layers, but the model has {own}", "expected fewer"
        )
    start, output = context.scratch / "student", context.scratch / "distilled"
    start.mkdir(parents=True, exist_ok=True)
    thinned(model, step.layers).save(start)
    shutil.copyfile(context.examples / "catalogue.parquet", start / "catalogue.parquet")
    ranker, _ = tuned(run)
    changed = {
        "epochs": step.epochs, "max_minutes": step.max_minutes, "adapter": type(ranker.training.adapter)(),  # type: ignore[call-arg]
    }  # fmt: skip
    ranker = ranker.model_copy(
        update={
            "model": ranker.model.model_copy(update={"layers": step.layers}),
            "training": ranker.training.model_copy(update=changed),
        }
    )
    job = training_spec(
        ranker,
        identity=f"{run.id}/distil",
        base=checked_base(run.ranker, context.examples, run).path,
        start=start,
        teacher=context.train,
        teacher_share=step.teacher_share,
        examples=context.examples,
        output=output,
    )
    found = run_job(job, threads=threads_each(ranker.training.processes))
    about = {
        "layers": step.layers,
        "validation_loss": found["validation_loss"],
        "training_steps": found["steps"],
    }
    return replace(before, model=TrainedModel.load(output), reshaped=True, about=about)


def kept_layers(count: int, layers: int) -> list[int]:
    """Places of `layers` of `count`, spread evenly, the first and the last among them; of one, the last."""
    return [count - 1] if layers == 1 else np.linspace(0, count - 1, layers).round().astype(int).tolist()


def thinned(model: TrainedModel, layers: int) -> TrainedModel:
    """The model with so many of its layers: where the copy's training begins."""
    shape = model.document.architecture
    place_of = {kept: place for place, kept in enumerate(kept_layers(shape.num_hidden_layers, layers))}
    numbered = re.compile(
        rf"{re.escape(model.encoder.layer('#')).replace(re.escape('#'), '([0-9]+)')}[.](.*)"
    )
    tensors = {}
    for name, tensor in model.tensors.items():
        found = numbered.fullmatch(name)
        if not found:
            tensors[name] = tensor
        elif int(found[1]) in place_of:
            tensors[f"{model.layer(place_of[int(found[1])])}.{found[2]}"] = tensor
    changed = shape.model_copy(update={"num_hidden_layers": layers})
    return TrainedModel(model.document.model_copy(update={"architecture": changed}), tensors)
