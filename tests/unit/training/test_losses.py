"""The losses and metrics against their formulas, and the order of batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reshelve.kinds.catalogue_learning import NEARNESS, recalls
from reshelve.kinds.pair.learning import reciprocal_ranks
from reshelve.kinds.pair.losses import pair_losses
from reshelve.training.batches import (
    evaluation_order,
    read_examples,
    steps_per_epoch,
    training_order,
)
from reshelve.training.losses import losses, weighted_mean
from reshelve.training.spec import training_spec
from reshelve.training.validation import in_whole_groups, lists_to_read


def test_next_item_loss_is_cross_entropy_with_the_nearest_item_first(
    tmp_path: Path, write_examples: Callable[..., Path]
) -> None:
    examples = read_examples(write_examples(tmp_path) / "train.parquet", "next_item")
    batch = examples.batch(np.array([3, 0]))
    logits = torch.randn(2, 17)
    near, far = 1 / (1 + NEARNESS), NEARNESS / (1 + NEARNESS)  # two targets each
    for row, example in enumerate((3, 0)):
        start = examples.target_starts[example]
        first, second = examples.targets[start], examples.targets[start + 1]
        logs = torch.log_softmax(logits[row], 0)
        wanted = -(near * logs[first] + far * logs[second])
        torch.testing.assert_close(losses("next_item", "pointwise", logits, batch)[0][row], wanted)
    scores = torch.zeros(2, 17)
    scores[0, examples.targets[examples.target_starts[3]]] = 1
    scores[1, (examples.targets[examples.target_starts[0]] + 3) % 17] = 1
    assert recalls(scores, batch, top=1).tolist() == [1.0, 0.0]


def test_reciprocal_rank_counts_groups_with_both_labels_and_ties_against() -> None:
    groups = torch.tensor([7, 7, 7, 9, 9, 4])
    labels = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0, 1.0])
    logits = torch.tensor([3.0, 2.0, 1.0, 0.5, 0.5, 9.0])
    assert reciprocal_ranks(groups, labels, logits) == [1 / 2, 1 / 2]
    assert reciprocal_ranks(groups[3:4], labels[3:4], logits[3:4]) == []


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 300),
    batch_size=st.integers(1, 20),
    processes=st.integers(1, 3),
    seed=st.integers(0, 5),
    split=st.integers(0, 30),
)
def test_the_order_can_be_entered_at_any_step(
    count: int, batch_size: int, processes: int, seed: int, split: int
) -> None:
    lengths = np.random.default_rng(seed).integers(2, 60, count)
    steps = min(30, 3 * steps_per_epoch(count, batch_size, processes))
    split = min(split, steps)

    def order(rank: int, first: int, last: int) -> list[list[int]]:
        chosen = training_order(
            lengths,
            batch_size=batch_size,
            processes=processes,
            rank=rank,
            seed=seed,
            first_step=first,
            steps=last,
        )
        return [batch.tolist() for batch in chosen]

    for rank in range(processes):
        whole = order(rank, 0, steps)
        assert len(whole) == steps and all(whole)
        assert order(rank, 0, split) + order(rank, split, steps) == whole
    if count >= batch_size * processes:  # within an epoch no example comes twice, and every batch is full
        epoch = min(steps, steps_per_epoch(count, batch_size, processes))
        seen = [index for rank in range(processes) for batch in order(rank, 0, epoch) for index in batch]
        assert len(seen) == len(set(seen)) == epoch * batch_size * processes


def test_validation_keeps_the_groups_of_pairs_whole(
    tmp_path: Path, write_examples: Callable[..., Path]
) -> None:
    examples = read_examples(write_examples(tmp_path, "pair") / "train.parquet", "pair")

    def drawn(lists: int) -> np.ndarray:
        shares = [
            evaluation_order(examples, batch_size=16, processes=2, rank=rank, lists=lists) for rank in (0, 1)
        ]
        return np.concatenate([batch for share in shares for batch in share])

    chosen = drawn(10)
    assert len(chosen) == len(set(chosen)) == 50
    few, more = set(examples.groups[chosen]), set(examples.groups[drawn(20)])
    assert len(few) == 10 and few < more, "fewer are a part of more: trials of two lengths compare"
    assert few != set(range(10)), "not the first ones"
    assert len(drawn(1000)) == len(examples) == 160


@pytest.mark.parametrize("loss", ["pairwise", "listwise", "pointwise"])
def test_a_loss_of_many_lists_is_that_of_its_pieces(loss: str) -> None:
    """Pairs need memory by the square of the rows."""
    drawn = torch.Generator().manual_seed(7)
    groups = torch.randint(0, 300, (5000,), generator=drawn)
    labels = torch.randint(0, 2, (5000,), generator=drawn).double()
    rows = torch.stack(
        [groups.double(), labels, torch.randn(5000, generator=drawn).double(), groups % 3 + 1.0], 1
    )
    pieces = list(in_whole_groups(rows))
    assert max(map(len, pieces)) < 1100 and sum(map(len, pieces)) == 5000
    kept = [set(piece[:, 0].tolist()) for piece in pieces]
    assert sum(map(len, kept)) == len(set().union(*kept))
    found = [pair_losses(loss, p[:, 2], p[:, 1], p[:, 3], p[:, 0].long()) for p in pieces]
    values, shares = (torch.cat(parts) for parts in zip(*found, strict=True))
    whole = pair_losses(loss, rows[:, 2], labels, rows[:, 3], groups)
    assert torch.isclose(weighted_mean(values, shares), weighted_mean(*whole))


def test_lists_are_what_validation_counts(
    tmp_path: Path, write_examples: Callable[..., Path], make_ranker
) -> None:
    examples = read_examples(write_examples(tmp_path, "pair", rows=10_000) / "train.parquet", "pair")
    assert examples.lists == 2000
    spec = training_spec(make_ranker("pair"), identity="i", base=tmp_path, examples=tmp_path, output=tmp_path)
    assert lists_to_read(spec, examples, trained=10) == 200, "1,000 examples, in lists"
    assert lists_to_read(spec, examples, trained=20_000) == 600, (
        "four validations read 0.6 of them, five to a list"
    )
    assert lists_to_read(spec, examples, trained=10**7) == 1000, "5,000 examples at most"
    assert (
        lists_to_read(spec.model_copy(update={"save": False, "budget_share": 0.1}), examples, 50_000) == 600
    )
