"""What two keys of a ranker file may not say together, wherever each is right by itself.

Each check raises the error of the key that is to be changed, so that whoever wrote the file is shown its line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reshelve.config.compression import Distil
from reshelve.config.kind_names import kind_object
from reshelve.config.tuning import SERVED
from reshelve.config.yaml_models import misfit

if TYPE_CHECKING:
    from reshelve.config.ranker import Ranker


def check_ranker(ranker: Ranker) -> None:
    """Raises pydantic's ValidationError."""
    for check in (_kind, _days, _remember, _labels, _training, _head, _layers, _latency):
        check(ranker)


def _days(ranker: Ranker) -> None:
    data = ranker.data
    least = data.holdout_partitions + data.validation_partitions + 1
    if data.split == "time" and data.window_days < least:
        raise misfit(
            f"{data.window_days} days leave none to train on: expected at least {least}, for "
            f"{data.holdout_partitions} are held out and {data.validation_partitions} validate",
            "data",
            "window_days",
        )
    if data.fold is not None and data.split != "query":
        raise misfit("folds need data.split: query", "data", "fold")
    if data.fold is not None and data.fold >= data.folds:
        raise misfit(f"expected less than data.folds ({data.folds}), got {data.fold}", "data", "fold")


def _remember(ranker: Ranker) -> None:
    if ranker.remember.days > ranker.data.window_days:
        raise misfit(
            f"expected at most data.window_days ({ranker.data.window_days}): nothing would ever be remembered",
            "remember",
            "days",
        )
    if ranker.remember.privacy.on and not kind_object(ranker.kind).noisy_counts:
        raise misfit(
            f"what a {ranker.kind} ranker's versions hold gets no noise, only counts of kinds that say so (search): expected null",
            "remember",
            "privacy",
            "epsilon",
        )


def _labels(ranker: Ranker) -> None:
    examples, events = ranker.examples, ranker.data.events
    judged = examples.labels == "judgements"
    if judged != ("judgement" in events) or ("judgement" in events and len(events) > 1):
        raise misfit(
            "judgements go with data.events: {judgement: 1.0}, and with no other event", "examples", "labels"
        )
    if examples.labels != "impressions" and {"behaviour", "position"} & set(examples.features):
        raise misfit("behaviour and position need labels: impressions", "examples", "features")
    if len(set(examples.features)) < len(examples.features):
        raise misfit("expected each once", "examples", "features")
    if examples.grades[0] >= examples.grades[1]:
        raise misfit("expected the lowest grade, then the highest", "examples", "grades")


def _kind(ranker: Ranker) -> None:
    """What goes with its kind, the kind knows."""
    kind_object(ranker.kind).check(ranker)


def _training(ranker: Ranker) -> None:
    training = ranker.training
    if training.patience is not None and training.patience > training.validations:
        raise misfit(
            f"training never stops early: expected at most training.validations ({training.validations})",
            "training",
            "patience",
        )


def _head(ranker: Ranker) -> None:
    if ranker.model.head != "titles":
        if ranker.release.index.url is not None:
            said = "a version has vectors for an index with model.head: titles alone: expected null"
            raise misfit(said, "release", "index", "url")
        if ranker.model.index_size is not None:
            said = "only items that are scored by their titles have vectors: expected null, or model.head: titles"
            raise misfit(said, "model", "index_size")
        return
    if ranker.model.index_size is not None and ranker.model.index_size > ranker.model.vector_size:
        said = f"vectors are cut, not lengthened: expected at most model.vector_size ({ranker.model.vector_size})"
        raise misfit(said, "model", "index_size")
    if not kind_object(ranker.kind).reads_titles:
        said = f"a {ranker.kind} ranker's items cannot be scored by their titles, only those of kinds that say so (search): expected items"
        raise misfit(said, "model", "head")
    if ranker.training.adversarial:
        raise misfit(
            "expected 0 with model.head: titles, where a step reads two kinds of texts",
            "training",
            "adversarial",
        )
    for place, step in enumerate(ranker.compression.steps):
        if isinstance(step, Distil):
            said = "a copy cannot be distilled of a model whose head is titles: expected model.layers instead"
            raise misfit(said, "compression", "steps", place, "layers")


def _layers(ranker: Ranker) -> None:
    """What the file says of layers; how many the base has is asked where the base is."""
    layers = ranker.model.layers
    for place, step in enumerate(ranker.compression.steps):
        if isinstance(step, Distil) and layers is not None and step.layers >= layers:
            said = f"expected fewer than the model's {layers} layers"
            raise misfit(said, "compression", "steps", place, "layers")
        tuned = ranker.tuning.space.get("model.layers")
        if isinstance(step, Distil) and tuned and step.layers >= min(map(float, tuned.values)):
            said = f"expected more layers than the copy that is distilled has ({step.layers})"
            raise misfit(said, "tuning", "space", "model.layers")


def _latency(ranker: Ranker) -> None:
    tuning = ranker.tuning
    if tuning.latency_weight and not set(SERVED) & set(tuning.space):
        raise misfit(
            f"all trials would be equally fast: expected {' or '.join(SERVED)} in tuning.space",
            "tuning",
            "latency_weight",
        )
