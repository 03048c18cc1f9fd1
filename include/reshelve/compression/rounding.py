"""The int8 step: ranges from training examples, the smoothing's strength chosen on validation examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from reshelve.compression.calibration import calibrate
from reshelve.compression.context import Context
from reshelve.compression.measure import (
    Agreement,
    GraphScorer,
    Scorer,
    agreement,
    drawn_request,
    latency,
)
from reshelve.config.compression import Int8Step, Step
from reshelve.export.batches import Encoded, batches
from reshelve.export.candidate import Candidate
from reshelve.export.layers import FloatLayers
from reshelve.export.precisions.int8 import Int8
from reshelve.export.precisions.registry import precision_named
from reshelve.export.tokenizer import TokenBatch
from reshelve.kind_registry import kind_of
from reshelve.logs import logger
from reshelve.model.int8 import ActivationRanges, QuantizedModel, quantize
from reshelve.model.trained import Array, TrainedModel
from reshelve.progress import counted

_ROUNDS = 45, 15  # of one text, of several
_SLACK = 0.002  # agreement that int8 item weights may cost for a quarter of their size


def int8(step: Int8Step, before: Candidate, context: Context) -> Candidate:
    """The model in eight bits, at the strength that agrees best on validation examples."""
    model = before.model
    ranges = context.ranges(model)
    logger(stage="compress").info("calibrated", examples=len(context.calibration))
    with GraphScorer(model, FloatLayers(model)) as reference:
        expected = scores(reference, context.validation)
    quantized, alpha = choose(step, model, ranges, context.validation, expected)
    about = {"alpha": alpha, "items_int8": quantized.has("items"), "mode": step.mode}
    return replace(before, precision=Int8(quantized, alpha), about=about)


def choose(
    step: Int8Step, model: TrainedModel, ranges: ActivationRanges, rows: list[Encoded], expected: Array
) -> tuple[QuantizedModel, float]:
    """The quantized model and its strength, by the float model's scores of `rows`; item weights stay float where int8 costs rank."""

    def agrees(alpha: float, items: bool = True) -> Agreement:
        rounded = Int8(quantize(model, ranges, alpha, items, step), alpha)
        with GraphScorer(model, rounded.layers(model)) as score:
            found = agreement(*_questions(model, expected, scores(score, rows)))
        logger(stage="compress").info(
            "tried", alpha=alpha, items=items, spearman=found.spearman, pearson=found.pearson
        )
        return found

    tried = {alpha: agrees(alpha) for alpha in step.alphas}
    alpha = max(tried, key=lambda value: (_both(tried[value]), -value))
    items = "items" not in model.sites() or _rank(agrees(alpha, items=False)) - _rank(tried[alpha]) <= _SLACK
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
    if model.document.items is not None:
        return list(before), list(after)
    return [before], [after]


def request_milliseconds(model: TrainedModel, rows: list[Encoded], steps: Sequence[Step]) -> float:
    """What the batch of a request takes in the model, rounded where `steps` do so and that is faster.

    Weights do not matter. Steps that reshape the model are left out: the search compares shapes before them.
    """
    shape, inputs = model.document.architecture, request_like(model, rows)
    rounds = _ROUNDS[len(inputs.ids) > 1]
    found = []
    with GraphScorer(model, FloatLayers(model)) as as_trained:
        for step in steps:
            if step.precision:
                ranges = calibrate(model, batches(rows, pad_id=model.encoder.pad_id(shape)))
                rounded = precision_named(step.precision).usual(model, ranges)
                with GraphScorer(model, rounded.layers(model)) as after:
                    measured = latency(as_trained, after, inputs, rounds)
                found += [measured.before, measured.after]
        if not found:
            found = [latency(as_trained, as_trained, inputs, rounds).before]
    return min(found)


def request_like(model: TrainedModel, rows: list[Encoded]) -> TokenBatch:
    """The batch of one request of the model's kind; a pair's tokens are shared by its texts as they are in the examples `rows`."""
    requests = kind_of(model.document.kind).requests
    length = min(requests.tokens, model.document.max_length)
    vocabulary = model.document.architecture.vocab_size
    return drawn_request(requests.rows, length, vocabulary, _left_tokens(rows, length))


def _left_tokens(rows: list[Encoded], length: int) -> int | None:
    """How many of `length` tokens are a pair's first text, as it is in the examples; None of single texts."""
    segments = [segment for _, types in rows if types is not None for segment in types]
    if not segments:
        return None
    return min(max(round(length * segments.count(0) / len(segments)), 2), length - 2)
