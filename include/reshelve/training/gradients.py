"""The gradients of all processes, summed by Horovod in place, in a few large buffers.

Horovod's own DistributedOptimizer hands over a hundred tensors, each copied into a buffer, divided, and copied back;
and it waits by spinning, on a small host on the very processor that moves them. Here each gradient is copied once, while
it is still in the cache, and the wait sleeps (docs/decisions/0085).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence

import horovod.torch as hvd
import torch
from torch import Tensor

BUFFER_BYTES = (
    32 * 2**20
)  # one travels while the next is filled; smaller ones cost more messages than they gain
_NAP = 0.0005  # seconds between looks at a sum that is under way: a step takes a thousand times that


def prefer_settings() -> None:
    """Horovod's settings that suit these buffers; call before `hvd.init()`. A host's own settings win."""
    os.environ.setdefault("HOROVOD_FUSION_THRESHOLD", "0")  # to fuse is to copy, and the buffers are large
    if not torch.cuda.is_available():
        os.environ.setdefault("HOROVOD_CYCLE_TIME", "10")  # the default polls a small host's CPU away


class Gradients:
    """The gradients of one job's trained parameters: for each step `clear`, backward passes, `add_up`.

    A wish to stop travels with them: a message of its own would make every process wait once more.
    """

    def __init__(self, parameters: Sequence[Tensor], passes: int) -> None:
        """`passes` backward passes make a step; each loss has to be multiplied by `share`."""
        self.share = 1 / (passes * hvd.size())  # so the sum is the mean, without a walk to divide it
        self._parameters = parameters
        self._buffers: list[_GradientBuffer] = []
        self._wish = torch.zeros(1)
        if hvd.size() > 1:
            self._buffers = [
                _GradientBuffer(f"gradients.{number}", part, passes)
                for number, part in enumerate(_parts(parameters))
            ]
            self._wish = self._buffers[-1].room

    def clear(self, stop: bool = False) -> None:
        """Forget the last step's gradients. `stop`: this process wishes the coming step to be the last."""
        for parameter in self._parameters:
            parameter.grad = None
        self._wish.fill_(float(stop))

    def add_up(self) -> bool:
        """Wait until each `.grad` is the sum over all processes; a parameter that no pass reached counts as 0.

        Whether any process wished to stop: the answer is the same on all, so none waits for one that left.
        """
        for buffer in self._buffers:
            buffer.start()
        for buffer in self._buffers:
            buffer.wait()
        return bool(self._wish > 0)


class _GradientBuffer:
    """One flat tensor whose parts are the gradients of `parameters`; its sum starts when the last pass has filled it."""

    def __init__(self, name: str, parameters: Sequence[Tensor], passes: int) -> None:
        self._name, self._parameters = name, parameters
        sizes = [p.numel() for p in parameters]
        self._values = torch.zeros(sum(sizes) + 1, device=parameters[0].device)
        *parts, self.room = self._values.split([*sizes, 1])  # one value more, for what travels along
        self._views = {p: part.view_as(p) for p, part in zip(parameters, parts, strict=True)}
        self._expected = self._missing = passes * len(parameters)
        self._handle: int | None = None
        for parameter in parameters:
            parameter.register_post_accumulate_grad_hook(self._arrived)

    def start(self) -> None:
        """Begin the sum, unless the last gradient to arrive has begun it."""
        if self._handle is not None:
            return
        for parameter, view in self._views.items():
            if parameter.grad is None:
                parameter.grad = view.zero_()
        self._handle = hvd.allreduce_async_(self._values, name=self._name, op=hvd.Sum)

    def wait(self) -> None:
        """Return when the sum is there."""
        assert self._handle is not None
        while not (self._values.is_cuda or hvd.poll(self._handle)):
            time.sleep(_NAP)
        hvd.synchronize(self._handle)
        self._handle, self._missing = None, self._expected

    def _arrived(self, parameter: Tensor) -> None:
        view = self._views[parameter]
        if parameter.grad is not view:  # a step's first pass; later ones add to the view itself
            assert parameter.grad is not None
            parameter.grad = view.copy_(parameter.grad)
        self._missing -= 1
        if self._missing == 0:
            self.start()


def _parts(parameters: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """The parameters from last to first, about as backward reaches them, in parts of about a buffer each."""
    part: list[Tensor] = []
    for parameter in reversed(parameters):
        part.append(parameter)
        if sum(p.numel() * p.element_size() for p in part) >= BUFFER_BYTES:
            yield part
            part = []
    if part:
        yield part
