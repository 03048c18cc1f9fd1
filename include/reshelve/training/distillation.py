"""A teacher in the training loop: the night's own larger model says what each example should score.

Pairs: the square of the difference of the logits (Ba and Caruana, 2014), which keeps the teacher's order within a query.
Over a catalogue: the Kullback-Leibler divergence of the softmax from the teacher's (Hinton et al., 2015).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor

from reshelve.rankers import Kind
from reshelve.training.batches import Batch
from reshelve.training.device import Device
from reshelve.training.model import RankerModel
from reshelve.training.spec import TrainingSpec
from reshelve.training.vocabulary import Vocabulary


class Teacher:
    """The model in `spec.teacher`, and how much of the loss is its."""

    def __init__(self, spec: TrainingSpec, vocabulary: Vocabulary, device: Device) -> None:
        assert spec.teacher
        self._kind, self._share = spec.kind, spec.teacher_share
        model = RankerModel.load(spec.teacher)
        vocabulary.shrink(model)
        self._model = model.to(device.torch_device).eval().requires_grad_(False)

    @torch.no_grad()
    def _says(self, batch: Batch) -> Tensor:
        return self._model(*batch.inputs).float()

    def blended(self, loss: Tensor, logits: Tensor, batch: Batch) -> Tensor:
        """`loss`, what was chosen, with the teacher's share of what it says of the same batch."""
        said = self._says(batch)
        if self._kind is Kind.PAIR:
            off = (logits - said).square()
        else:
            off = F.kl_div(logits.log_softmax(1), said.log_softmax(1), reduction="none", log_target=True).sum(
                1
            )
        from_teacher = (off * batch.weights).sum() / batch.weights.sum().clamp(min=1e-9)
        return self._share * from_teacher + (1 - self._share) * loss
