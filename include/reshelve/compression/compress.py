"""The compress stage: int8, kept only where it is measured to rank alike and to be no slower.

Ranges come from training examples, the smoothing strength is chosen on validation examples, and the
verdict is spoken on held-out questions that neither has seen.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from reshelve.compression.calibration import calibrate
from reshelve.compression.int8 import ActivationRanges, QuantizedModel, float_bytes, quantize
from reshelve.compression.measure import Agreement, Latency, Scorer, agreement, latency, scorer
from reshelve.errors import DataError
from reshelve.lineage import Run
from reshelve.logs import logger
from reshelve.packaging.batches import Encoded, batches, example_rows, text_rows
from reshelve.packaging.catalogue import Catalogue
from reshelve.packaging.graph import FloatLayers
from reshelve.packaging.heldout import read_questions
from reshelve.packaging.int8_layers import Int8Layers
from reshelve.packaging.trained import Array, TrainedModel
from reshelve.progress import counted
from reshelve.rankers import Kind

ALPHAS = (0.5, 0.7, 0.85)
_SHAPES = {
    Kind.NEXT_ITEM: (1, 32),
    Kind.SEARCH: (1, 16),
    Kind.PAIR: (32, 64),
}  # the batch a request brings: one history or query, or a shortlist
_ROUNDS = {1: 15, 32: 5}
_HELD_OUT = 48  # questions
_SHORTLIST = 20  # candidates per question
_SLACK = 0.002  # agreement that int8 item weights may cost for a quarter of their size


class CompressionDocument(BaseModel):
    """`compression.json`: what the package stage builds. `scales`: site → the input's least and greatest float."""

    model_config = ConfigDict(frozen=True)

    precision: Literal["int8", "float32"] = "float32"
    layers: tuple[str, ...] = ()
    alpha: float | None = None
    scales: dict[str, tuple[float, float]] = {}


def compress(run: Run) -> dict[str, Any]:
    """Write `compression.json`, and `quantized.safetensors` where int8 is kept; the result tells each step's figures."""
    directory = run.stage("compress").directory
    train, examples = run.stage("train").files(), run.stage("examples").files()
    steps: list[dict[str, Any]] = []
    document = CompressionDocument()
    if "int8" in run.ranker.compression.steps:
        step, quantized, alpha = _int8(run, TrainedModel.load(train), train, examples)
        steps.append(step)
        if step["kept"]:
            quantized.save(directory / "quantized.safetensors")
            document = _described(quantized, alpha)
    partial = directory / ".compression.json.partial"
    partial.write_text(document.model_dump_json(indent=1))
    partial.rename(directory / "compression.json")
    return {"steps": steps, "precision": document.precision}


def _int8(
    run: Run, model: TrainedModel, train: Path, examples: Path
) -> tuple[dict[str, Any], QuantizedModel, float]:
    log = logger(stage="compress")
    settings = run.ranker.compression
    rows = example_rows(examples / "train.parquet", settings.calibration_examples)
    if not rows:
        raise DataError(f"{examples / 'train.parquet'}: no example to calibrate on", "expected at least one")
    ranges = calibrate(model, counted(list(batches(rows)), log, "calibrating", "batches"))
    log.info("calibrated", examples=len(rows))
    chosen = example_rows(examples / "validation.parquet", settings.calibration_examples // 4) or rows[:64]
    reference = scorer(model, FloatLayers(model))
    quantized, alpha = _choose(model, ranges, chosen, reference)
    layers = Int8Layers(model, quantized)
    after = scorer(model, layers)
    found = _held_out_agreement(model, train, examples, reference, after)
    shapes = {
        shape: latency(
            reference,
            after,
            *_fitting(shape, model),
            model.document.architecture.vocab_size,
            _ROUNDS[shape[0]],
        )
        for shape in _SHAPES.values()
    }
    speed = shapes[_SHAPES[model.document.kind]]
    kept, reason = verdict(found, speed, settings.min_agreement)
    log.info("int8", kept=kept, reason=reason, alpha=alpha)
    before_bytes = sum(t.nbytes for t in model.tensors.values())
    step = {
        "step": "int8", "kept": kept, "reason": reason, "agreement": found.spearman, "pearson": found.pearson,
        "alpha": alpha, "items_int8": quantized.has("items"), "bytes_before": before_bytes,
        "bytes_after": quantized.bytes + float_bytes(model, quantized),
        "latency": [asdict(measured) for measured in shapes.values()],
    }  # fmt: skip
    return step, quantized, alpha


def request_milliseconds(model: TrainedModel, rows: list[Encoded], steps: Sequence[str]) -> float:
    """What the batch of a request takes in the model, compressed by `steps` where that is faster. Weights do not matter."""
    shape = _SHAPES[model.document.kind]
    layers = Int8Layers(model, quantize(model, calibrate(model, batches(rows)), ALPHAS[1]))
    measured = latency(
        scorer(model, FloatLayers(model)),
        scorer(model, layers),
        *_fitting(shape, model),
        model.document.architecture.vocab_size,
        _ROUNDS[shape[0]] * 3,
    )
    return min(measured.before, measured.after) if "int8" in steps else measured.before


def _choose(
    model: TrainedModel, ranges: ActivationRanges, rows: list[Encoded], reference: Scorer
) -> tuple[QuantizedModel, float]:
    """The smoothing strength that agrees best on validation examples; item weights stay float where int8 costs rank."""
    expected = _scores(reference, rows)

    def agrees(alpha: float, items: bool = True) -> Agreement:
        layers = Int8Layers(model, quantize(model, ranges, alpha, items))
        found = agreement(*_questions(model, expected, _scores(scorer(model, layers), rows)))
        logger(stage="compress").info(
            "tried", alpha=alpha, items=items, spearman=found.spearman, pearson=found.pearson
        )
        return found

    tried = {alpha: agrees(alpha) for alpha in ALPHAS}
    alpha = max(tried, key=lambda value: (tried[value].spearman + tried[value].pearson, -value))
    items = (
        not model.document.kind.over_catalogue
        or agrees(alpha, items=False).spearman - tried[alpha].spearman <= _SLACK
    )
    return quantize(model, ranges, alpha, items), alpha


def _scores(score: Scorer, rows: list[Encoded]) -> Array:
    asked = counted(list(batches(rows)), logger(stage="compress"), "scoring", "batches")
    return np.concatenate([score(batch) for batch in asked])


def _questions(model: TrainedModel, before: Array, after: Array) -> tuple[list[Array], list[Array]]:
    """Scores per question: each row of a next-item model is one, all pairs together are one."""
    if model.document.kind.over_catalogue:
        return list(before), list(after)
    return [before], [after]


def _held_out_agreement(
    model: TrainedModel, train: Path, examples: Path, reference: Scorer, after: Scorer
) -> Agreement:
    catalogue = Catalogue.load(examples / "catalogue.parquet")
    questions = read_questions(examples, catalogue, _HELD_OUT)
    tokenizer, length = train / "tokenizer.json", model.document.max_length
    if model.document.kind.over_catalogue:
        rows = text_rows(tokenizer, length, [q.text for q in questions])
        return agreement(list(_scores(reference, rows)), list(_scores(after, rows)))
    titles = dict(zip(catalogue.items, catalogue.titles, strict=True))
    pairs = [[(q.text, titles.get(item, item)) for item in q.candidates[:_SHORTLIST]] for q in questions]
    rows = text_rows(tokenizer, length, [pair for group in pairs for pair in group])
    ends = np.cumsum([len(group) for group in pairs])[:-1]
    return agreement(np.split(_scores(reference, rows), ends), np.split(_scores(after, rows), ends))


def verdict(found: Agreement, speed: Latency, least: float) -> tuple[bool, str]:
    """Whether int8 ships, and why, in words."""
    shape = f"{speed.batch} × {speed.length}"
    if found.spearman < least:
        return False, f"agreement {found.spearman:.3f} is below {least:g}: float32 ships"
    if speed.ratio > 1:
        return False, f"{speed.ratio:.2f} of the float time at {shape}, the batch of a request: float32 ships"
    return True, f"agreement {found.spearman:.3f}, {speed.ratio:.2f} of the float time at {shape}"


def _fitting(shape: tuple[int, int], model: TrainedModel) -> tuple[int, int]:
    return shape[0], min(shape[1], model.document.max_length)


def _described(quantized: QuantizedModel, alpha: float) -> CompressionDocument:
    sites = [name.removesuffix(".weight") for name in sorted(quantized.tensors) if name.endswith(".weight")]
    scales = {
        site: tuple(map(float, quantized[f"{site}.input"]))
        for site in sites
        if f"{site}.input" in quantized.tensors
    }
    return CompressionDocument(precision="int8", layers=tuple(sites), alpha=alpha, scales=scales)


def read_compression(directory: Path) -> CompressionDocument:
    """`compression.json`. Raises DataError where it is not one."""
    try:
        return CompressionDocument.model_validate(json.loads((directory / "compression.json").read_bytes()))
    except (OSError, ValueError) as error:
        raise DataError(f"{directory / 'compression.json'}: cannot be read", str(error)) from error
