"""How good a model is on the newest slice before the held-out one: loss and ranking metric, with its interval.

What is counted in is lists: an example of a catalogue ranker is one, as are all pairs of one query.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import horovod.torch as hvd
import torch
from torch import Tensor

from reshelve.errors import DataError
from reshelve.logs import logger
from reshelve.rankers import Kind
from reshelve.training.batches import Examples, evaluation_order
from reshelve.training.device import Device
from reshelve.training.losses import (
    METRICS,
    losses,
    pair_losses,
    recalls,
    reciprocal_ranks,
    weighted_mean,
)
from reshelve.training.model import RankerModel
from reshelve.training.spec import TrainingSpec

LEAST_LISTS = 200  # a reciprocal rank has a standard error of about 0.03 on so many
LEAST_EXAMPLES = 1000  # and a recall one of 0.016
MOST_EXAMPLES = (
    5000  # of a large shop: training seldom reads all of its examples, and validations take of its time
)
SHARE = 0.6  # of the training examples, forward only: about a fifth of the time of one pass over them


def lists_to_read(spec: TrainingSpec, validation: Examples, trained: int) -> int:
    """How many lists a validation reads, of those there are: all, while all validations of a job together read at most SHARE of
    its `trained` examples, and one at most MOST_EXAMPLES; LEAST_LISTS and LEAST_EXAMPLES in any case.

    Whatever a search may vary (epochs, batch sizes) has no part in it: trials of one length read the same lists.
    """
    ema = spec.training.average == "ema"
    validations = spec.training.validations + 2 + ema if spec.save else 1
    examples = max(LEAST_EXAMPLES, min(MOST_EXAMPLES, SHARE * trained * spec.budget_share / validations))
    lists = math.ceil(examples * validation.lists / len(validation))
    return min(validation.lists, max(LEAST_LISTS, lists))


@torch.no_grad()
def validate(
    spec: TrainingSpec, model: RankerModel, examples: Examples, device: Device, lists: int
) -> dict[str, float]:
    """Weighted mean `loss` and the ranking metric by its name over `lists` drawn lists, each process having done its share.

    `<metric>_low` and `<metric>_high` are its 95 % interval, `lists` how many it is over. Where none has a value the metric is left
    out. Raises DataError where the loss compares within lists and none has two labels.
    """
    model.eval()
    batches = evaluation_order(examples, batch_size=64, processes=hvd.size(), rank=hvd.rank(), lists=lists)
    sums = torch.zeros(4, dtype=torch.float64)  # loss·weight, weight, metric, examples
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
        sums += torch.tensor([*(float(value) for value in part), len(chosen)], dtype=torch.float64)
    model.train()
    if spec.kind is Kind.PAIR:
        # Together: a group's rows lie in batches of several processes.
        return _of_pairs(spec, hvd.allgather(torch.cat(rows), name="scored"))
    loss, weight, hits, count = hvd.allreduce(sums, op=hvd.Sum, name="validation").tolist()
    # A recall of one item is 0 or 1: its own square.
    return {"loss": loss / weight, **_metric(METRICS[spec.kind], hits, hits, round(count))}


def _of_pairs(spec: TrainingSpec, rows: Tensor) -> dict[str, float]:
    groups, labels, logits, _ = rows.unbind(1)
    found = [
        pair_losses(spec.training.loss, some[:, 2], some[:, 1], some[:, 3], some[:, 0].long())
        for some in in_whole_groups(rows)
    ]
    values, shares = (torch.cat(parts) for parts in zip(*found, strict=True))
    if not shares.any():
        raise nothing_to_order("validation.parquet", spec.training.loss)
    ranks = torch.tensor(reciprocal_ranks(groups.long(), labels, logits), dtype=torch.float64)
    if not len(ranks) and hvd.rank() == 0:
        logger(stage="train").warning(
            "no validation list holds both a wanted and another item: there is no ranking metric, and the loss chooses"
        )
    total, squares = float(ranks.sum()), float(ranks.square().sum())
    return {
        "loss": float(weighted_mean(values, shares)),
        **_metric(METRICS[spec.kind], total, squares, len(ranks)),
    }


def in_whole_groups(rows: Tensor, size: int = 1000) -> Iterator[Tensor]:
    """The rows in pieces of about `size`, no group in two of them: a loss of pairs needs memory by the square of a piece."""
    rows = rows[torch.argsort(rows[:, 0], stable=True)]
    _, sizes = torch.unique_consecutive(rows[:, 0], return_counts=True)
    pieces = torch.bincount((sizes.cumsum(0) - sizes) // size, weights=sizes.double()).long()
    yield from torch.split(rows, pieces[pieces > 0].tolist())


def _metric(name: str, total: float, squares: float, count: int) -> dict[str, float]:
    """Mean and 95 % interval (normal; lists taken for independent) of `count` values in [0, 1] with these sums."""
    if not count:
        return {}
    mean = total / count
    if count == 1:
        return {name: mean, "lists": 1}
    half = 1.96 * math.sqrt(max(0.0, squares / count - mean**2) / (count - 1))
    return {
        name: mean,
        f"{name}_low": max(0.0, mean - half),
        f"{name}_high": min(1.0, mean + half),
        "lists": count,
    }


def nothing_to_order(file: str, loss: str) -> DataError:
    """What to say where a loss within lists has no list to learn or to be measured from."""
    return DataError(
        f"{file}: no list holds two labels, and training.loss {loss} compares within lists",
        "expected lists with a wanted and another item; or training.loss pointwise",
    )
