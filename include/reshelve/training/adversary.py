"""Adversarial training by the fast gradient method: learn from each text moved the way that hurts most.

Miyato, Dai, Goodfellow, "Adversarial Training Methods for Semi-Supervised Text Classification", ICLR 2017: the change of a
text's word embeddings x is epsilon · |x| · g / |g|, where g is the loss's gradient by x.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from reshelve.training.model import RankerModel


class Adversary:
    """Stands at the model's word embeddings. It has no state between steps."""

    def __init__(self, model: RankerModel, epsilon: float) -> None:
        self._epsilon = epsilon
        self._embedded: Tensor | None = None
        self._change: Tensor | None = None
        model.encoder.words.register_forward_hook(self._pass)

    @contextmanager
    def attacking(self, attention_mask: Tensor) -> Iterator[None]:
        """After a backward pass: the next forward pass of the same batch reads the changed embeddings."""
        assert self._embedded is not None and self._embedded.grad is not None
        mask = attention_mask.unsqueeze(-1)
        embedded, gradient = self._embedded.detach() * mask, self._embedded.grad * mask
        self._embedded = None
        scale = self._epsilon * _length(embedded) / _length(gradient).clamp(min=1e-12)
        self._change = gradient * scale
        try:
            yield
        finally:
            self._change = None

    def _pass(self, module: Any, inputs: Any, output: Tensor) -> Tensor | None:
        if not torch.is_grad_enabled():
            return None
        if self._change is not None:
            return output + self._change
        if not output.requires_grad:  # beside an adapter the embeddings themselves stay as they are
            output.requires_grad_()
        output.retain_grad()
        self._embedded = output
        return None


def _length(values: Tensor) -> Tensor:
    return values.flatten(1).norm(dim=1)[:, None, None]
