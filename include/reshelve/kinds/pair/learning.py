"""What a pair ranker minimises, alone or within the list of a query, and the metric of its validation: the reciprocal rank."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import horovod.torch as hvd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from reshelve.kind import Learning
from reshelve.kinds.pair.losses import pair_losses
from reshelve.logs import logger
from reshelve.training.batches import Batch, TokenisedExamples, feature_matrix, flat
from reshelve.training.losses import weighted_mean
from reshelve.training.validation import in_whole_groups, metric_of, nothing_to_order


class TokenisedPairs(TokenisedExamples):
    """Pairs of texts with labels in 0 … 1; the pairs of one query are a group."""

    def __init__(self, table: pa.Table) -> None:
        super().__init__(table)
        self.types, _ = flat(table["token_type_ids"])
        self.labels = table["label"].to_numpy().astype(np.float32)
        self.groups = table["group"].to_numpy().astype(np.int64)
        self.features = feature_matrix(table)

    def orders_something(self) -> bool:
        order = np.argsort(self.groups, kind="stable")
        first = np.flatnonzero(np.diff(self.groups[order], prepend=-1))
        labels = self.labels[order]
        return bool((np.maximum.reduceat(labels, first) > np.minimum.reduceat(labels, first)).any())

    def wanted(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.labels[chosen], np.zeros(0, dtype=np.float32)


class PairLearning(Learning):
    """See `losses.py` for what `training.loss` may be."""

    metric = "mrr"

    def read(self, path: Path) -> TokenisedExamples:
        return TokenisedPairs(pq.read_table(path))

    def losses(self, loss: str, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        return pair_losses(loss, logits, batch.labels, batch.weights, batch.groups)

    def validated(self, loss: str, scored: Iterable[tuple[Batch, Tensor]]) -> dict[str, float]:
        rows = [torch.zeros(0, 4, dtype=torch.float64)]  # group, label, logit, weight
        for batch, logits in scored:
            columns = (batch.groups, batch.labels, logits, batch.weights)
            rows.append(torch.stack([column.double() for column in columns], dim=1).cpu())
        # Together: a group's rows lie in batches of several processes.
        return self._of_rows(loss, hvd.allgather(torch.cat(rows), name="scored"))

    def _of_rows(self, loss: str, rows: Tensor) -> dict[str, float]:
        groups, labels, logits, _ = rows.unbind(1)
        found = [
            pair_losses(loss, some[:, 2], some[:, 1], some[:, 3], some[:, 0].long())
            for some in in_whole_groups(rows)
        ]
        values, shares = (torch.cat(parts) for parts in zip(*found, strict=True))
        if not shares.any():
            raise nothing_to_order("validation.parquet", loss)
        ranks = torch.tensor(reciprocal_ranks(groups.long(), labels, logits), dtype=torch.float64)
        if not len(ranks) and hvd.rank() == 0:
            logger(stage="train").warning(
                "no validation list has both a relevant and another item: there is no ranking metric, so the loss decides"
            )
        total, squares = float(ranks.sum()), float(ranks.square().sum())
        return {
            "loss": float(weighted_mean(values, shares)),
            **metric_of(self.metric, total, squares, len(ranks)),
        }

    def from_teacher(self, logits: Tensor, said: Tensor) -> Tensor:
        """The square of the difference (Ba and Caruana, 2014), which keeps the teacher's order within a query."""
        return (logits - said).square()


def reciprocal_ranks(groups: Tensor, labels: Tensor, logits: Tensor) -> list[float]:
    """1/rank of the best positive of each group that has both labels; ties count against."""
    found: list[float] = []
    order = torch.argsort(groups, stable=True)
    _, sizes = torch.unique_consecutive(groups[order], return_counts=True)
    for chosen in torch.split(order, sizes.tolist()):
        positive = labels[chosen] > 0.5
        if positive.any() and not positive.all():
            best = logits[chosen][positive].max()
            found.append(1.0 / (1 + int((logits[chosen][~positive] >= best).sum())))
    return found


FACET = PairLearning()
