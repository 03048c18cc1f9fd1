"""Examples from Parquet, and the order in which the processes of one job see them.

The order is a function of the seed and the step alone, so a job that is resumed at step n goes on with the
batch it would have had. Examples of like length share a batch: on real titles a batch then holds almost no padding.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from reshelve.errors import DataError
from reshelve.kind_registry import kind_of

# Batches are sorted by length inside pools of this many, and shuffled after: like lengths together, yet any example
# may meet any other in the next epoch.
_POOL = 50
_DRAW = 20110830  # seed of what validations read: one draw for all trainings and trials, so that they compare


@dataclass(frozen=True)
class Batch:
    """One step of one process.

    `labels`: [B] of pairs. Over a catalogue the targets' coordinates (row, item) [2, N], nearest first within a row, and
    `shares` [N] what each is of its row's 1.
    """

    input_ids: Tensor
    attention_mask: Tensor
    token_type_ids: Tensor
    labels: Tensor
    shares: Tensor
    weights: Tensor
    groups: Tensor
    features: Tensor  # float32 [B, F] of pairs; F is 0 where the model reads none

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What the model reads."""
        return self.input_ids, self.attention_mask, self.token_type_ids, self.features

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        return Batch(
            *(getattr(self, name).to(device, non_blocking=True) for name in self.__dataclass_fields__)
        )


class TokenisedExamples(ABC):
    """One table of tokenised examples, kept as flat arrays: a list of lists would cost ten times the memory.

    `tokens` of all examples, one after another; example i has those from `starts[i]`, `lengths[i]` of them. `types` are those
    of the tokens where an example is two texts. Examples of one of the `groups` [N] are one list: only together they order something.
    """

    types: np.ndarray | None = None
    pad_id = 0  # fills a batch
    targets = np.zeros(0, np.int64)  # over a catalogue: places of what was wanted, of all examples

    def __init__(self, table: pa.Table) -> None:
        self.tokens, self.starts = flat(table["input_ids"])
        self.lengths = np.diff(self.starts)
        self.weights = table["weight"].to_numpy().astype(np.float32)
        self.groups = np.arange(len(self.lengths))
        self.features = np.zeros((len(self.lengths), 0), dtype=np.float32)

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def lists(self) -> int:
        """How many there are."""
        return len(np.unique(self.groups))

    def orders_something(self) -> bool:
        """Whether any list has two labels, so that one order of it is better than another."""
        return False

    @abstractmethod
    def wanted(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`labels` and `shares` of a batch of the examples `chosen`."""

    def batch(self, chosen: np.ndarray) -> Batch:
        """The examples `chosen` (indices), padded to the longest of them."""
        rows, width = len(chosen), int(self.lengths[chosen].max())
        ids = np.full((rows, width), self.pad_id, dtype=np.int64)
        mask = np.zeros((rows, width), dtype=np.int64)
        types = np.zeros((rows, width), dtype=np.int64)
        for row, index in enumerate(chosen):
            start, length = self.starts[index], self.lengths[index]
            ids[row, :length] = self.tokens[start : start + length]
            mask[row, :length] = 1
            if self.types is not None:
                types[row, :length] = self.types[start : start + length]
        labels, shares = self.wanted(chosen)
        of_examples = (self.weights[chosen], self.groups[chosen], self.features[chosen])
        arrays = (ids, mask, types, labels, shares, *of_examples)
        return Batch(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays))


@dataclass(frozen=True)
class Units:
    """What is dealt into batches: examples, or whole groups of them where the loss compares within a group.

    `lengths` [U] tokens of a unit's longest example; `size` units to a batch; unit u holds the examples
    order[starts[u] : starts[u + 1]].
    """

    lengths: np.ndarray
    size: int
    order: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, examples: TokenisedExamples, batch_size: int, grouped: bool) -> Units:
        """Units for batches of `batch_size` examples, of about so many where groups differ in size.

        A group that fills a batch alone is dealt in parts, in the order of its rows.
        """
        if not grouped:
            everyone = np.arange(len(examples) + 1)
            return cls(examples.lengths, batch_size, everyone[:-1], everyone)
        order = np.argsort(examples.groups, kind="stable")
        first = np.flatnonzero(np.diff(examples.groups[order], prepend=-1))
        ends = np.append(first[1:], len(order))
        starts = np.concatenate(
            [np.arange(start, end, batch_size) for start, end in zip(first, ends, strict=True)]
        )
        size = max(1, round(batch_size * len(starts) / len(order)))
        longest = np.maximum.reduceat(examples.lengths[order], starts)
        return cls(longest, size, order, np.append(starts, len(order)))

    def __len__(self) -> int:
        return len(self.lengths)

    def examples(self, chosen: np.ndarray) -> np.ndarray:
        """The examples of the units `chosen`."""
        parts = [self.order[self.starts[unit] : self.starts[unit + 1]] for unit in chosen]
        return np.concatenate(parts)


def read_examples(path: Path, kind: str, pad_id: int = 0) -> TokenisedExamples:
    """The examples in `path`, batches of which are filled with the token `pad_id`. Raises DataError where there are none or the file is not as agreed."""
    try:
        examples = kind_of(kind).learning.read(path)
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{path.name}: the examples cannot be read", str(error)) from error
    if not len(examples):
        raise DataError(
            f"{path.name}: there are no examples", "see the examples stage's counts and its window"
        )
    examples.pad_id = pad_id
    return examples


def steps_per_epoch(examples: int, batch_size: int, processes: int) -> int:
    """Steps in which every process sees a full batch; what is left over differs from epoch to epoch."""
    return max(1, examples // (batch_size * processes))


def training_order(
    lengths: np.ndarray, *, batch_size: int, processes: int, rank: int, seed: int, first_step: int, steps: int
) -> Iterator[np.ndarray]:
    """For each step in `first_step … steps`: the indices of this process's batch."""
    per_epoch = steps_per_epoch(len(lengths), batch_size, processes)
    epoch = first_step // per_epoch
    place = first_step % per_epoch
    done = first_step
    while done < steps:
        for chosen in _epoch(lengths, batch_size * processes, np.random.default_rng([seed, epoch]))[place:]:
            if done == steps:
                return
            # Dealt like cards: the processes' batches are equally long, so none waits for another.
            share = chosen[rank::processes]
            yield share if len(share) else chosen[:1]
            done += 1
        epoch, place = epoch + 1, 0


def evaluation_order(
    examples: TokenisedExamples, *, batch_size: int, processes: int, rank: int, lists: int
) -> list[np.ndarray]:
    """This process's batches over `lists` lists, like lengths together.

    The lists are drawn from the whole file, the same on every call; fewer are a part of more. The groups stay
    whole: half a shortlist would be an easier question.
    """
    drawn = np.random.default_rng(_DRAW).permutation(np.unique(examples.groups))[:lists]
    chosen = np.flatnonzero(np.isin(examples.groups, drawn))
    chosen = chosen[np.argsort(examples.lengths[chosen], kind="stable")][rank::processes]
    return [chosen[start : start + batch_size] for start in range(0, len(chosen), batch_size)]


def _epoch(lengths: np.ndarray, size: int, random: np.random.Generator) -> list[np.ndarray]:
    order = random.permutation(len(lengths))
    batches = []
    for start in range(0, len(order), size * _POOL):
        pool = order[start : start + size * _POOL]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        whole = max(1, len(pool) // size) if start == 0 else len(pool) // size
        # The examples that fill no whole batch are left out by lot, not by length.
        keep = np.sort(random.permutation(len(pool))[: whole * size])
        batches += np.array_split(pool[keep], whole) if whole else []
    random.shuffle(batches)
    return batches


def feature_matrix(table: pa.Table) -> np.ndarray:
    """The features of a table of pairs as float32 [N, F]; F is 0 where there are none."""
    name = "features"
    if name not in table.column_names or table[name].null_count == len(table):
        return np.zeros((len(table), 0), dtype=np.float32)
    values, _ = flat(table[name])
    return values.astype(np.float32).reshape(len(table), -1)


def flat(column: object) -> tuple[np.ndarray, np.ndarray]:
    """A list column as (values, starts), whatever chunks it was read in."""
    array = column.combine_chunks()  # type: ignore[attr-defined]
    offsets = array.offsets.to_numpy()
    return array.values.to_numpy(zero_copy_only=False), offsets.astype(np.int64)
