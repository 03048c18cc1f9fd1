"""How good a model is on the newest slice before the held-out one: loss and ranking metric."""

from __future__ import annotations

import horovod.torch as hvd
import torch
from torch import Tensor

from reshelve.rankers import Kind
from reshelve.training.batches import Examples, evaluation_order
from reshelve.training.device import Device
from reshelve.training.losses import (
    METRICS,
    losses,
    mean_reciprocal_rank,
    pair_losses,
    recalls,
    weighted_mean,
)
from reshelve.training.model import RankerModel
from reshelve.training.spec import TrainingSpec

VALIDATION_EXAMPLES = 1000  # enough to compare rates by, a small part of the time


@torch.no_grad()
def validate(spec: TrainingSpec, model: RankerModel, examples: Examples, device: Device) -> dict[str, float]:
    """Weighted mean loss and ranking metric over the validation examples, each process having done its share."""
    model.eval()
    batches = evaluation_order(
        examples, batch_size=64, processes=hvd.size(), rank=hvd.rank(), most=VALIDATION_EXAMPLES
    )
    sums = torch.zeros(4)  # loss·weight, weight, metric, examples
    rows = [torch.zeros(0, 4, dtype=torch.float64)]  # pair: group, label, logit, weight
    for chosen in batches:
        batch = examples.batch(chosen).to(device.torch_device)
        with device.autocast():
            logits = model(*batch.inputs)
        logits = logits.float()
        if spec.kind is Kind.PAIR:
            columns = (batch.groups, batch.labels, logits, batch.weights)
            rows.append(torch.stack([column.double() for column in columns], dim=1).cpu())
            continue
        found, weights = losses(spec.kind, spec.training.loss, logits, batch)
        part = ((found * weights).sum(), weights.sum(), recalls(logits, batch).sum())
        sums += torch.tensor([*(float(value) for value in part), len(chosen)])
    model.train()
    if spec.kind is Kind.PAIR:
        # Together: a group's rows lie in batches of several processes.
        return _of_pairs(spec, hvd.allgather(torch.cat(rows), name="scored"))
    sums = hvd.allreduce(sums, op=hvd.Sum, name="validation")
    return {"loss": float(sums[0] / sums[1]), METRICS[spec.kind]: float(sums[2] / sums[3])}


def _of_pairs(spec: TrainingSpec, rows: Tensor) -> dict[str, float]:
    groups, labels, logits, weights = rows.unbind(1)
    loss = weighted_mean(*pair_losses(spec.training.loss, logits, labels, weights, groups.long()))
    return {
        "loss": float(loss),
        METRICS[spec.kind]: mean_reciprocal_rank(groups.long(), labels, logits),
    }
