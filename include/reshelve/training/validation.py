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
from reshelve.kind_registry import kind_of
from reshelve.statistics.normal import mean_of_sums
from reshelve.training.batches import Batch, TokenisedExamples, evaluation_order
from reshelve.training.device import Device
from reshelve.training.model import RankerModel
from reshelve.training.spec import TrainingSpec

LEAST_LISTS = 200  # a reciprocal rank has a standard error of about 0.03 on so many
LEAST_EXAMPLES = 1000  # and a recall one of 0.016
MOST_EXAMPLES = (
    5000  # of a large shop: training seldom reads all of its examples, and validations take of its time
)
SHARE = 0.6  # of the training examples, forward only: about a fifth of the time of one pass over them


def lists_to_read(spec: TrainingSpec, validation: TokenisedExamples, trained: int) -> int:
    """How many lists a validation reads, of those there are: all, while all validations of a job together read at most SHARE of
    its `trained` examples, and one at most MOST_EXAMPLES; LEAST_LISTS and LEAST_EXAMPLES in any case.

    Whatever trials may vary (epochs, batch sizes) has no part in it: trials of one length read the same lists.
    """
    ema = spec.training.average == "ema"
    validations = spec.training.validations + 2 + ema if spec.save else 1
    examples = max(LEAST_EXAMPLES, min(MOST_EXAMPLES, SHARE * trained * spec.budget_share / validations))
    lists = math.ceil(examples * validation.lists / len(validation))
    return min(validation.lists, max(LEAST_LISTS, lists))


@torch.no_grad()
def validate(
    spec: TrainingSpec, model: RankerModel, examples: TokenisedExamples, device: Device, lists: int
) -> dict[str, float]:
    """Weighted mean `loss` and the ranking metric by its name over `lists` drawn lists, each process having done its share.

    `<metric>_low` and `<metric>_high` are its 95 % interval, `lists` how many it is over. Where none has a value the metric is left
    out. Raises DataError where the loss compares within lists and none has two labels.
    """
    batches = evaluation_order(examples, batch_size=64, processes=hvd.size(), rank=hvd.rank(), lists=lists)

    def scored() -> Iterator[tuple[Batch, Tensor]]:
        for chosen in batches:
            batch = examples.batch(chosen).to(device.torch_device)
            with device.autocast():
                logits = model(*batch.inputs)
            yield batch, logits.float()

    model.eval()
    found = kind_of(spec.kind).learning.validated(spec.training.loss, scored())
    model.train()
    return found


def in_whole_groups(rows: Tensor, size: int = 1000) -> Iterator[Tensor]:
    """The rows in pieces of about `size`, no group in two of them: a loss of pairs needs memory by the square of a piece."""
    rows = rows[torch.argsort(rows[:, 0], stable=True)]
    _, sizes = torch.unique_consecutive(rows[:, 0], return_counts=True)
    pieces = torch.bincount((sizes.cumsum(0) - sizes) // size, weights=sizes.double()).long()
    yield from torch.split(rows, pieces[pieces > 0].tolist())


def metric_of(name: str, total: float, squares: float, count: int) -> dict[str, float]:
    """Mean and 95 % interval (normal; lists taken for independent) of `count` values in [0, 1] with these sums."""
    if not count:
        return {}
    found = mean_of_sums(total, squares, count)
    if found is None:
        return {name: total, "lists": 1}
    return {
        name: found.value,
        f"{name}_low": max(0.0, found.low),
        f"{name}_high": min(1.0, found.high),
        "lists": count,
    }


def nothing_to_order(file: str, loss: str) -> DataError:
    """What to say where a loss within lists has no list to learn or to be measured from."""
    return DataError(
        f"{file}: no list has two different labels, and training.loss {loss} compares within lists",
        "expected lists with a relevant and another item; or training.loss pointwise",
    )
