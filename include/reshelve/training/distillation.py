"""A teacher in the training loop: the night's own larger model says what each example should score."""

from __future__ import annotations

import torch
from torch import Tensor

from reshelve.kind_registry import kind_of
from reshelve.training.batches import Batch
from reshelve.training.device import Device
from reshelve.training.model import RankerModel
from reshelve.training.spec import TrainingSpec
from reshelve.training.vocabulary import Vocabulary


class Teacher:
    """The model in `spec.teacher`, and how much of the loss is its."""

    def __init__(self, spec: TrainingSpec, vocabulary: Vocabulary, device: Device) -> None:
        assert spec.teacher
        self._learning, self._share = kind_of(spec.kind).learning, spec.teacher_share
        model = RankerModel.load(spec.teacher)
        vocabulary.shrink(model)
        self._model = model.to(device.torch_device).eval().requires_grad_(False)

    @torch.no_grad()
    def _says(self, batch: Batch) -> Tensor:
        return self._model(*batch.inputs).float()

    def blended(self, loss: Tensor, logits: Tensor, batch: Batch) -> Tensor:
        """`loss`, what was chosen, with the teacher's share of what it says of the same batch."""
        said = self._says(batch)
        off = self._learning.from_teacher(logits, said)
        from_teacher = (off * batch.weights).sum() / batch.weights.sum().clamp(min=1e-9)
        return self._share * from_teacher + (1 - self._share) * loss
