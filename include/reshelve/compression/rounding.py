"""The int8 step: ranges from training examples, the smoothing's strength chosen on validation examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from reshelve.compression.calibration import calibrate
from reshelve.compression.candidate import Candidate
from reshelve.compression.context import Context
from reshelve.compression.form import Int8, Step
from reshelve.compression.int8 import ActivationRanges, QuantizedModel, quantize
from reshelve.compression.measure import Agreement, Scorer, agreement, latency, scorer
from reshelve.logs import logger
from reshelve.packaging.batches import Encoded, batches
from reshelve.packaging.graph import FloatLayers
from reshelve.packaging.int8_layers import Int8Layers
from reshelve.packaging.trained import Array, TrainedModel
from reshelve.progress import counted
from reshelve.rankers import Kind

_SHAPES = {
    Kind.NEXT_ITEM: (1, 32),
    Kind.SEARCH: (1, 16),
    Kind.PAIR: (32, 64),
}  # the batch a request brings: one history or query, or a shortlist
_ROUNDS = {1: 45, 32: 15}
_USUAL_ALPHA = 0.7
_SLACK = 0.002  # agreement that int8 item weights may cost for a quarter of their size


def int8(step: Int8, before: Candidate, context: Context) -> Candidate:
    """The model in eight bits, at the strength that agrees best on validation examples."""
    model = before.model
    ranges = context.ranges(model)
    logger(stage="compress").info("calibrated", examples=len(context.calibration))
    reference = scorer(model, FloatLayers(model))
    quantized, alpha = choose(step, model, ranges, context.validation, reference)
    about = {"alpha": alpha, "items_int8": quantized.has("items"), "mode": step.mode}
    return replace(before, quantized=quantized, precision="int8", about=about)


def choose(
    step: Int8, model: TrainedModel, ranges: ActivationRanges, rows: list[Encoded], reference: Scorer
) -> tuple[QuantizedModel, float]:
    """The quantized model and its strength; item weights stay float where int8 costs rank."""
    expected = scores(reference, rows)

    def agrees(alpha: float, items: bool = True) -> Agreement:
        layers = Int8Layers(model, quantize(model, ranges, alpha, items, step))
        found = agreement(*_questions(model, expected, scores(scorer(model, layers), rows)))
        logger(stage="compress").info(
            "tried", alpha=alpha, items=items, spearman=found.spearman, pearson=found.pearson
        )
        return found

    tried = {alpha: agrees(alpha) for alpha in step.alphas}
    alpha = max(tried, key=lambda value: (_both(tried[value]), -value))
    items = (
        not model.document.kind.over_catalogue
        or _rank(agrees(alpha, items=False)) - _rank(tried[alpha]) <= _SLACK
    )
    return quantize(model, ranges, alpha, items, step), alpha


def _rank(found: Agreement) -> float:
    """To choose by: where nothing can agree, every strength is as good."""
    return found.spearman or 0.0


def _both(found: Agreement) -> float:
    return _rank(found) + (found.pearson or 0.0)


def scores(score: Scorer, rows: list[Encoded]) -> Array:
    """Of all rows, in batches."""
    asked = counted(list(batches(rows)), logger(stage="compress"), "scoring", "batches")
    return np.concatenate([score(batch) for batch in asked])


def _questions(model: TrainedModel, before: Array, after: Array) -> tuple[list[Array], list[Array]]:
    """Scores per question: each row of a next-item model is one, all pairs together are one."""
    if model.document.kind.over_catalogue:
        return list(before), list(after)
    return [before], [after]


def request_milliseconds(model: TrainedModel, rows: list[Encoded], steps: Sequence[Step]) -> float:
    """What the batch of a request takes in the model, in int8 where `steps` have it and that is faster.

    Weights do not matter. Steps that reshape the model are left out: the search compares shapes before them.
    """
    batch, length = _SHAPES[model.document.kind]
    layers = Int8Layers(model, quantize(model, calibrate(model, batches(rows)), _USUAL_ALPHA))
    measured = latency(
        scorer(model, FloatLayers(model)),
        scorer(model, layers),
        batch,
        min(length, model.document.max_length),
        model.document.architecture.vocab_size,
        _ROUNDS[batch],
    )
    rounded = any(step.step == "int8" for step in steps)
    return min(measured.before, measured.after) if rounded else measured.before
