"""What training minimises, and the ranking metric that is watched beside it."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor

from reshelve.rankers import Kind
from reshelve.training.batches import Batch

# The metric of each kind on the validation examples.
METRICS = {Kind.NEXT_ITEM: "recall@20", Kind.PAIR: "mrr"}


def example_losses(kind: Kind, logits: Tensor, batch: Batch) -> Tensor:
    """One loss per example [B], in nats.

    next_item: cross entropy of the softmax over the catalogue against the uniform distribution over the basket's
    remaining items. pair: binary cross entropy, so that sigmoid(logit) is a probability that can be shown, cached and
    compared between queries, which a softmax within each query's group would not be.
    """
    if kind is Kind.PAIR:
        return F.binary_cross_entropy_with_logits(logits, batch.labels, reduction="none")
    row, item = batch.labels
    found = F.log_softmax(logits, dim=1)[row, item]
    total = torch.zeros(len(logits), device=logits.device).index_add_(0, row, found)
    count = torch.zeros_like(total).index_add_(0, row, torch.ones_like(found))
    return -total / count.clamp(min=1)


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """The mean of `values` [B] under `weights` [B]."""
    return (values * weights).sum() / weights.sum().clamp(min=1e-9)


def recalls(logits: Tensor, batch: Batch, top: int = 20) -> Tensor:
    """next_item: for each example the share of its wanted items among the `top` highest scores [B]."""
    row, item = batch.labels
    best = logits.topk(min(top, logits.shape[1]), dim=1).indices
    hit = (best[row] == item.unsqueeze(1)).any(1).float()
    total = torch.zeros(len(logits), device=logits.device).index_add_(0, row, hit)
    return total / torch.zeros_like(total).index_add_(0, row, torch.ones_like(hit)).clamp(min=1)


def mean_reciprocal_rank(groups: Tensor, labels: Tensor, logits: Tensor) -> float:
    """pair: mean of 1/rank of the best positive of each group; groups without one do not count, ties count against."""
    found: list[float] = []
    order = torch.argsort(groups, stable=True)
    _, sizes = torch.unique_consecutive(groups[order], return_counts=True)
    for chosen in torch.split(order, sizes.tolist()):
        positive = labels[chosen] > 0.5
        if positive.any() and not positive.all():
            best = logits[chosen][positive].max()
            found.append(1.0 / (1 + int((logits[chosen][~positive] >= best).sum())))
    return sum(found) / len(found) if found else 0.0
