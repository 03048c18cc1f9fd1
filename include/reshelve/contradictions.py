"""What two keys of a ranker file may not say together, wherever each is right by itself.

Each check raises the error of the key that is to be changed, so that whoever wrote the file is shown its line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reshelve.compression.form import Distil
from reshelve.forms import misfit
from reshelve.tuning.form import SERVED

if TYPE_CHECKING:
    from reshelve.rankers import Ranker


def check_ranker(ranker: Ranker) -> None:
    """Raises pydantic's ValidationError."""
    for check in (_days, _labels, _kind, _metric, _training, _layers, _latency):
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
    if data.split == "query" and ranker.kind.over_catalogue:
        raise misfit("only pairs can be split by query", "data", "split")
    if data.fold is not None and data.split != "query":
        raise misfit("only where data.split is query there are folds", "data", "fold")
    if data.fold is not None and data.fold >= data.folds:
        raise misfit(f"expected less than data.folds ({data.folds}), got {data.fold}", "data", "fold")


def _labels(ranker: Ranker) -> None:
    examples, events = ranker.examples, ranker.data.events
    if ranker.kind.over_catalogue:
        for key, given in (("labels", examples.labels != "choices"), ("features", bool(examples.features))):
            if given:
                said = f"examples.labels and examples.features are for pair; {ranker.kind.value} has its own"
                raise misfit(said, "examples", key)
    judged = examples.labels == "judgements"
    if judged != ("judgement" in events) or ("judgement" in events and len(events) > 1):
        raise misfit(
            "judgements go with data.events: {judgement: 1.0}, and with no other event", "examples", "labels"
        )
    if examples.labels != "impressions" and {"behaviour", "position"} & set(examples.features):
        raise misfit("behaviour and position are known of impressions alone", "examples", "features")
    if len(set(examples.features)) < len(examples.features):
        raise misfit("expected each once", "examples", "features")
    if examples.grades[0] >= examples.grades[1]:
        raise misfit("expected the lowest grade, then the highest", "examples", "grades")
    drawn = examples.sampled_negatives + examples.hard_negatives
    if not ranker.kind.over_catalogue and examples.labels == "choices" and not drawn:
        raise misfit(
            "a choice needs something it is preferred to: expected sampled_negatives or hard_negatives",
            "examples",
            "sampled_negatives",
        )


def _kind(ranker: Ranker) -> None:
    if not ranker.examples.repeat and ranker.kind is not ranker.kind.NEXT_ITEM:
        raise misfit(
            f"only next_item reads a history that holds items; {ranker.kind.value} has none",
            "examples",
            "repeat",
        )
    if not ranker.kind.over_catalogue:
        return
    kind = ranker.kind.value
    if ranker.model.towers:
        raise misfit(f"only a pair has two texts; {kind} has one", "model", "towers")
    if ranker.training.loss != "pointwise":
        raise misfit(f"{ranker.training.loss} is for pair; {kind} has one loss", "training", "loss")


def _metric(ranker: Ranker) -> None:
    metric, top = ranker.gates.metric, ranker.release.top
    if not ranker.kind.over_catalogue:
        return
    if metric == "auc":
        raise misfit(
            "auc needs every candidate's place, and a catalogue is answered with its best only",
            "gates",
            "metric",
        )
    depth = int(metric.partition("@")[2] or 0)
    if depth > top:
        raise misfit(
            f"{metric} looks deeper than an answer goes: expected release.top of at least {depth}, got {top}",
            "gates",
            "metric",
        )


def _training(ranker: Ranker) -> None:
    training = ranker.training
    if training.patience is not None and training.patience > training.validations:
        raise misfit(
            f"training never stops early: expected at most training.validations ({training.validations})",
            "training",
            "patience",
        )


def _layers(ranker: Ranker) -> None:
    """What the file says of layers; how many the base has is asked where the base is."""
    layers = ranker.model.layers
    for place, step in enumerate(ranker.compression.steps):
        if isinstance(step, Distil) and layers is not None and step.layers >= layers:
            said = f"expected fewer than the model's {layers} layers"
            raise misfit(said, "compression", "steps", place, "layers")
        searched = ranker.search.space.get("model.layers")
        if isinstance(step, Distil) and searched and step.layers >= min(map(float, searched.values)):
            said = f"expected more layers than the copy that is distilled has ({step.layers})"
            raise misfit(said, "search", "space", "model.layers")


def _latency(ranker: Ranker) -> None:
    search = ranker.search
    if search.latency_weight and not set(SERVED) & set(search.space):
        raise misfit(
            "nothing to weigh, for all trials would be equally fast: "
            f"expected {' or '.join(SERVED)} in search.space",
            "search",
            "latency_weight",
        )
