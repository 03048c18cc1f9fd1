"""A moving average of the weights, which often ranks better than the last of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """The exponential moving average of what is trained. Every process keeps the same one."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self._live = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self.values: dict[str, Tensor] = {name: value.detach().clone() for name, value in self._live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after `step` (1, 2, …); the first steps count for more, or the start would never fade."""
        decay = min(self._decay, step / (step + 9))
        torch._foreach_lerp_(list(self.values.values()), list(self._live.values()), 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model holds the average while this lasts."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, live in self._live.items():
            held = live.clone()
            live.copy_(self.values[name])
            self.values[name].copy_(held)
