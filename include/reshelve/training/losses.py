"""What training minimises, and the ranking metric that is watched beside it."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor

from reshelve.rankers import Kind
from reshelve.training.batches import Batch

# The metric of each kind on the validation examples.
METRICS = {Kind.NEXT_ITEM: "recall@20", Kind.SEARCH: "recall@20", Kind.PAIR: "mrr"}


def losses(kind: Kind, loss: str, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """The losses of a batch, in nats, and their weights: one per example, or one per group for pairwise and listwise.

    next_item: cross entropy of the softmax over the catalogue against the basket's remaining items, the nearest with
    the greatest share. pair: see `pair_losses`.
    """
    if kind is Kind.PAIR:
        return pair_losses(loss, logits, batch.labels, batch.weights, batch.groups)
    row, item = batch.labels
    found = F.log_softmax(logits, dim=1)[row, item] * batch.shares
    return -torch.zeros(len(logits), device=logits.device).index_add_(0, row, found), batch.weights


def pair_losses(
    loss: str, logits: Tensor, labels: Tensor, weights: Tensor, groups: Tensor
) -> tuple[Tensor, Tensor]:
    """The losses of rows [B] with labels in 0 … 1, and their weights. Groups have to be whole for the last two.

    - pointwise: binary cross entropy, so that sigmoid(logit) is a probability that can be shown, cached and compared
      between queries; a label between 0 and 1 is a probability too.
    - squared: (sigmoid(logit) - label)², which a wrong label moves less.
    - pairwise: log(1 + exp(b - a)) over a group's pairs where a is labelled higher (RankNet, Burges et al. 2005).
    - listwise: cross entropy of the softmax over the group against its labels (ListNet's top one, Cao et al. 2007).

    A group of equal labels says nothing about order: the last two give it no weight.
    """
    if loss == "pointwise":
        return F.binary_cross_entropy_with_logits(logits, labels, reduction="none"), weights
    if loss == "squared":
        return (torch.sigmoid(logits) - labels).square(), weights
    _, group, sizes = torch.unique(groups, return_inverse=True, return_counts=True)

    def summed(values: Tensor) -> Tensor:
        return torch.zeros(len(sizes), dtype=values.dtype, device=values.device).index_add_(0, group, values)

    highest = torch.full((len(sizes),), -torch.inf, dtype=labels.dtype, device=labels.device)
    lowest = -highest
    highest.scatter_reduce_(0, group, labels, "amax")
    lowest.scatter_reduce_(0, group, labels, "amin")
    of_groups = summed(weights) / sizes * (highest > lowest)
    if loss == "pairwise":
        better = (group[:, None] == group[None, :]) & (labels[:, None] > labels[None, :])
        found = F.softplus(logits[None, :] - logits[:, None]) * better
        return summed(found.sum(1)) / summed(better.sum(1).to(logits.dtype)).clamp(min=1), of_groups
    top = torch.full_like(highest, -torch.inf, dtype=logits.dtype)
    top.scatter_reduce_(0, group, logits.detach(), "amax")
    logs = logits - top[group] - summed(torch.exp(logits - top[group])).log()[group]
    return -summed(logs * labels / summed(labels).clamp(min=1e-9)[group]), of_groups


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


def reciprocal_ranks(groups: Tensor, labels: Tensor, logits: Tensor) -> list[float]:
    """pair: 1/rank of the best positive of each group that has both labels; ties count against."""
    found: list[float] = []
    order = torch.argsort(groups, stable=True)
    _, sizes = torch.unique_consecutive(groups[order], return_counts=True)
    for chosen in torch.split(order, sizes.tolist()):
        positive = labels[chosen] > 0.5
        if positive.any() and not positive.all():
            best = logits[chosen][positive].max()
            found.append(1.0 / (1 + int((logits[chosen][~positive] >= best).sum())))
    return found
