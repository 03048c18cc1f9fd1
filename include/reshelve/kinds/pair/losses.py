"""The losses of pairs, by the names of `training.loss`."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor


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
