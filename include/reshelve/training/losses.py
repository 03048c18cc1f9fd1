"""What training minimises: the losses of the ranker's kind, and their weighted mean."""

from __future__ import annotations

from torch import Tensor

from reshelve.kind_registry import kind_of
from reshelve.training.batches import Batch


def losses(kind: str, loss: str, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """The losses of a batch, in nats, and their weights: one per example, or one per group of them, as the kind has it."""
    return kind_of(kind).learning.losses(loss, logits, batch)


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """The mean of `values` [B] under `weights` [B]."""
    return (values * weights).sum() / weights.sum().clamp(min=1e-9)
