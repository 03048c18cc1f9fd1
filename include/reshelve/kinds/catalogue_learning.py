"""What the kinds minimise that order the whole catalogue: the cross entropy of a softmax over it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import horovod.torch as hvd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor

from reshelve.kind import Learning
from reshelve.training.batches import Batch, TokenisedExamples, flat
from reshelve.training.validation import metric_of

# How much less a target weighs than the one before it in the basket. The gate asks for the next item; those further on tell
# about the basket too, the less the further (docs/decisions/0034).
NEARNESS = 0.7


class CatalogueExamples(TokenisedExamples):
    """A text, and the places in the catalogue of what was wanted, nearest first."""

    def __init__(self, table: pa.Table) -> None:
        super().__init__(table)
        self.targets, self.target_starts = flat(table["targets"])

    def targets_of(self, example: int) -> np.ndarray:
        """What was wanted."""
        return self.targets[self.target_starts[example] : self.target_starts[example + 1]]

    def wanted(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        wanted = [self.targets_of(index) for index in chosen]
        row_of = np.repeat(np.arange(len(chosen)), [len(items) for items in wanted])
        labels = np.stack([row_of, np.concatenate(wanted)]).astype(np.int64)
        return labels, np.concatenate([_shares(len(items)) for items in wanted])


class CatalogueLearning(Learning):
    """One loss: cross entropy against the wanted items, the nearest with the greatest share."""

    metric = "recall@20"

    def read(self, path: Path) -> TokenisedExamples:
        return CatalogueExamples(pq.read_table(path))

    def losses(self, loss: str, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        row, item = batch.labels
        found = F.log_softmax(logits, dim=1)[row, item] * batch.shares
        return -torch.zeros(len(logits), device=logits.device).index_add_(0, row, found), batch.weights

    def validated(self, loss: str, scored: Iterable[tuple[Batch, Tensor]]) -> dict[str, float]:
        sums = torch.zeros(4, dtype=torch.float64)  # loss·weight, weight, metric, examples
        for batch, logits in scored:
            found, weights = self.losses(loss, logits, batch)
            part = ((found * weights).sum(), weights.sum(), recalls(logits, batch).sum())
            sums += torch.tensor([*(float(value) for value in part), len(weights)], dtype=torch.float64)
        total, weight, hits, count = hvd.allreduce(sums, op=hvd.Sum, name="validation").tolist()
        # A recall of one item is 0 or 1: its own square.
        return {"loss": total / weight, **metric_of(self.metric, hits, hits, round(count))}

    def from_teacher(self, logits: Tensor, said: Tensor) -> Tensor:
        """The Kullback-Leibler divergence of the softmax from the teacher's (Hinton et al., 2015)."""
        likely, theirs = logits.log_softmax(1), said.log_softmax(1)
        return F.kl_div(likely, theirs, reduction="none", log_target=True).sum(1)


def recalls(logits: Tensor, batch: Batch, top: int = 20) -> Tensor:
    """1 where the next item is among the `top` highest scores, as the gate asks it [B]."""
    row, item = batch.labels
    first = torch.ones_like(row, dtype=torch.bool)
    first[1:] = row[1:] != row[:-1]
    best = logits.topk(min(top, logits.shape[1]), dim=1).indices
    return (best == item[first].unsqueeze(1)).any(1).float()


def _shares(count: int) -> np.ndarray:
    """Weights of a row's targets, nearest first; their sum is 1."""
    weights = NEARNESS ** np.arange(count, dtype=np.float32)
    return (weights / weights.sum()).astype(np.float32)
