"""Sparse rows in TensorFlow against the dense product they stand for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from scipy import sparse

from reshelve.features.postings import Postings, PostingsTable


def drawn(seed: int, rows: int, width: int, weights: int) -> list[np.ndarray]:
    """Dense matrices; the others weigh places of the first, and may be 0 there."""
    random = np.random.default_rng(seed)
    first = random.normal(size=(rows, width)) * (random.random((rows, width)) < 0.4)
    return [first, *(random.integers(-2, 3, (rows, width)) * (first != 0) for _ in range(weights - 1))]


def spread(table: Postings, rows: list[int], keys: list[int], amounts: np.ndarray, count: int) -> np.ndarray:
    integers = (tf.constant(np.array(values, np.int32)) for values in (rows, keys))
    found = PostingsTable(table).spread(*integers, tf.constant(amounts, tf.float32), tf.constant(count))
    return found.numpy()


@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 6),
    width=st.integers(1, 7),
    weights=st.integers(1, 3),
    entries=st.integers(0, 12),
    count=st.integers(1, 4),
)
@settings(deadline=None, max_examples=80)
def test_a_spread_is_a_product(
    seed: int, rows: int, width: int, weights: int, entries: int, count: int
) -> None:
    dense = drawn(seed, rows, width, weights)
    random = np.random.default_rng(seed + 1)
    to, keys = random.integers(0, count, entries), random.integers(0, rows, entries)
    amounts = random.normal(size=entries)
    asked = np.zeros((count, rows))
    np.add.at(asked, (to, keys), amounts)
    expected = np.stack([asked @ matrix for matrix in dense], axis=-1)
    table = Postings.of(*map(sparse.csr_matrix, dense))
    assert len(table.columns) == np.count_nonzero(dense[0])
    found = spread(table, to.tolist(), keys.tolist(), amounts, count)
    assert found.shape == (count, width, weights)
    assert np.allclose(found, expected, atol=1e-5)


def test_a_place_that_is_written_twice_is_one_posting_and_one_that_is_zero_none() -> None:
    first = sparse.coo_matrix(([1.0, 2.0, 0.0], ([0, 0, 1], [2, 2, 0])), (2, 3)).tocsr()
    table = Postings.of(first)
    assert (table.starts.tolist(), table.columns.tolist(), table.weights.tolist()) == (
        [0, 1, 1],
        [2],
        [[3.0]],
    )


@pytest.mark.parametrize("rows", [0, 3])
@pytest.mark.parametrize("weights", [1, 4])
def test_an_empty_table_leads_nowhere(rows: int, weights: int) -> None:
    table = Postings.of(*[sparse.csr_matrix((rows, 5), dtype=np.float32)] * weights)
    keys = list(range(rows))
    found = spread(table, [0] * rows, keys, np.ones(rows), 2)
    assert found.shape == (2, 5, weights) and not found.any()


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    tables = {name: Postings.of(*map(sparse.csr_matrix, drawn(n, 4, 5, 2))) for n, name in enumerate("ab")}
    save_file(
        {k: t for name, table in tables.items() for k, t in table.tensors(name).items()}, tmp_path / "t"
    )
    for name, table in tables.items():
        again = Postings.read(name, load_file(tmp_path / "t"))
        assert again.width == table.width == 5
        for field in ("starts", "columns", "weights"):
            one, other = getattr(again, field), getattr(table, field)
            assert one.dtype == other.dtype and np.array_equal(one, other), field


@given(
    seed=st.integers(0, 10_000), rows=st.integers(1, 6), width=st.integers(1, 7), weights=st.integers(1, 2)
)
@settings(deadline=None, max_examples=60)
def test_what_is_made_of_postings_is_what_a_dense_matrix_makes(
    seed: int, rows: int, width: int, weights: int
) -> None:
    first = drawn(seed, rows, width, weights)
    table, random = Postings.of(*map(sparse.csr_matrix, first)), np.random.default_rng(seed + 1)
    there = first[0] != 0

    def same(found: Postings, expected: list[np.ndarray], kept: np.ndarray) -> None:
        assert found.width == kept.shape[1] and len(found.starts) == len(kept) + 1
        row, column = np.nonzero(kept)
        assert np.array_equal(np.repeat(np.arange(len(kept)), np.diff(found.starts)), row)
        assert np.array_equal(found.columns, column)
        assert np.allclose(found.weights, np.stack([matrix[kept] for matrix in expected], axis=1))

    same(table.transposed(), [matrix.T for matrix in first], there.T)
    wanted = random.random(width) < 0.5
    same(table.only(wanted), first, there & wanted)
    order = random.permutation(rows)
    same(table.rows(order), [matrix[order] for matrix in first], there[order])
    same(table.shortened(2), first, there & (np.cumsum(there, axis=1) <= 2))
    begin = int(random.integers(0, rows))
    same(table.slice(begin, rows), [matrix[begin:] for matrix in first], there[begin:])
    used = np.flatnonzero(there.any(0) | wanted)
    same(table.renumbered(used), [matrix[:, used] for matrix in first], there[:, used])
    assert np.array_equal(table.column_counts(), there.sum(0))
    numbers = random.normal(size=width).astype(np.float32)
    assert np.allclose(table.sums(numbers), there @ numbers, atol=1e-5)
