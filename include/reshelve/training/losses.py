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

    next_item: cross entropy of the softmax over the catalogue against the basket's remaining items, the nearest with
    the greatest share. pair: binary cross entropy, so that sigmoid(logit) is a probability that can be shown, cached and
    compared between queries, which a softmax within each query's group would not be.
    """
    if kind is Kind.PAIR:
        return F.binary_cross_entropy_with_logits(logits, batch.labels, reduction="none")
    row, item = batch.labels
    found = F.log_softmax(logits, dim=1)[row, item] * batch.shares
    return -torch.zeros(len(logits), device=logits.device).index_add_(0, row, found)


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """The mean of `values` [B] under `weights` [B]."""
    return (values * weights).sum() / weights.sum().clamp(min=1e-9)


def recalls(logits: Tensor, batch: Batch, top: int = 20) -> Tensor:
    """next_item: 1 where the next item is among the `top` highest scores, as the gate asks it [B]."""
    row, item = batch.labels
    first = torch.ones_like(row, dtype=torch.bool)
    first[1:] = row[1:] != row[:-1]
    best = logits.topk(min(top, logits.shape[1]), dim=1).indices
    return (best == item[first].unsqueeze(1)).any(1).float()


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
