"""Whether training on a catalogue fits into memory, asked before its first step: a killed worker says nothing of the reason."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from reshelve.config.ranker import Ranker, Training, place_of
from reshelve.errors import ConfigurationError
from reshelve.kind_registry import kind_of
from reshelve.lineage.results import ExamplesResult
from reshelve.lineage.run import Run
from reshelve.logs import logger
from reshelve.machine_memory import most_memory
from reshelve.model.ranker_form import base_architecture

_FLOAT = 4
_KEPT = 4  # of each weight of the head: itself, its gradient, AdamW's two moments
_PASSING = 2  # copies while weights are read, put together from titles, or written
_LOGITS = 4  # [batch, items] at once: logits, their softmax, its gradient, and what is to be learnt
_TITLE = 600  # bytes: its tokens, and which titles are like it
_VALIDATED = 64  # examples of a batch that is validated, whose logits are those of all items
_NEAR = 0.8


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes of what grows with the catalogue, in all processes of one job. `least`: held from the first step to the last. `most`: at its peak."""

    least: int
    most: int

    @classmethod
    def of(cls, width: int, items: int, training: Training, vector_size: int | None = None) -> TrainingMemory:
        """Of `items` products on an encoder that is `width` wide: Linear(2 · width, items), and logits of a batch.

        With `vector_size` of the titles' vectors instead, which are not trained, and of the titles like each one.
        """
        if vector_size is not None:
            held = items * (_FLOAT * (vector_size + 1) + _TITLE)
            asked = _FLOAT * _LOGITS * _VALIDATED * items
            return cls(
                least=training.processes * held,
                most=training.processes * (held * (1 + _PASSING) + asked),
            )
        head = _FLOAT * (2 * width + 1) * items
        copies = _KEPT + _PASSING + (training.average == "ema") + (training.patience is not None)
        logits = _FLOAT * _LOGITS * training.batch_size * items
        return cls(
            least=training.processes * _KEPT * head, most=training.processes * (copies * head + logits)
        )


def check_memory(run: Run, ranker: Ranker, base: Path, at_once: int = 1) -> None:
    """Compare with what this process may have, a log line where it is near. `at_once`: jobs side by side.

    Where training goes to an accelerator nothing is asked. Raises ConfigurationError where not even the least of one job fits.
    """
    items, most = run.stage("examples").require(ExamplesResult).items, most_memory()
    if not items or most is None or _accelerated() or not kind_of(ranker.kind).scores_catalogue:
        return
    need = TrainingMemory.of(
        base_architecture(base, ranker.model.max_length).hidden_size,
        items,
        ranker.training,
        ranker.model.title_vector,
    )
    fits = int(items * most / need.least)
    if need.least > most:
        raise ConfigurationError(
            f"{place_of(ranker.name, 'data.catalogue_days')}: training on {items:,} products takes at least "
            f"{_gigabytes(need.least)} GB of memory, and this process may have {_gigabytes(most)} GB",
            f"expected fewer than {fits:,} products (data.catalogue_days, data.exclude), fewer "
            f"training.processes (now {ranker.training.processes}), or a larger machine or limit of its container",
        )
    if at_once * need.most > _NEAR * most:
        logger(stage="train", run=run.id).warning(
            "training comes near the memory that there is",
            items=items, jobs=at_once, gigabytes=_gigabytes(at_once * need.most), most_gigabytes=_gigabytes(most),
        )  # fmt: skip


def _accelerated() -> bool:
    """Whether weights will be in an accelerator's memory; asked without torch, which takes seconds to import."""
    return Path("/dev/nvidia0").exists() and os.environ.get("CUDA_VISIBLE_DEVICES") != ""


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f}"
