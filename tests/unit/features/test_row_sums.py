"""Sums over the keys of items that are asked, against the dense product they stand for."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from reshelve.features.postings import Postings
from reshelve.features.row_sums import CHUNK, RowSums

WIDTH = 3 * 2**16  # so that keys have the same last bits


def table(seed: int, items: int, weights: int) -> Postings:
    """Items with none, some, or more keys than are read together; the first keys are asked most."""
    random = np.random.default_rng(seed)
    lengths = random.choice([0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK], items)
    likely = np.concatenate([np.arange(40), 2**16 + np.arange(40), [WIDTH - 1]])
    columns = [np.sort(random.choice(likely, length, replace=False)) for length in lengths]
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    flat = np.concatenate([*columns, np.empty(0)]).astype(np.int32)
    return Postings(starts, flat, random.normal(size=(len(flat), weights)).astype(np.float32), WIDTH)


@pytest.mark.parametrize("weights", [0, 1, 2])
@given(seed=st.integers(0, 10_000), items=st.integers(1, 8), rows=st.integers(1, 3), asked=st.integers(0, 30))
@settings(deadline=None, max_examples=30)
def test_it_is_the_product_of_what_is_asked(
    seed: int, items: int, rows: int, asked: int, weights: int
) -> None:
    postings, random = table(seed, items, weights), np.random.default_rng(seed + 1)
    keys = np.concatenate([np.arange(40), 2**16 + np.arange(40), 2**17 + np.arange(40), [WIDTH - 1]])
    cells = random.choice(rows * len(keys), asked, replace=False)
    row, key = (cells // len(keys)).astype(np.int32), keys[cells % len(keys)].astype(np.int32)
    amounts = random.normal(size=(asked, 3)).astype(np.float32)
    places = random.integers(0, items, (rows, 5)).astype(np.int32)
    found = RowSums(postings).at(*map(tf.constant, (places, row, key)), tf.constant(amounts)).numpy()

    columns = [np.ones(len(postings.columns)), *[]] if not weights else list(postings.weights.T)
    for amount in range(3):
        wanted = sparse.csr_matrix((amounts[:, amount], (row, key)), (rows, WIDTH))
        for number, values in enumerate(columns):
            of_items = sparse.csr_matrix((values, postings.columns, postings.starts), (items, WIDTH))
            expected = np.take_along_axis((wanted @ of_items.T).toarray(), places, axis=1)
            assert np.allclose(found[..., amount * len(columns) + number], expected, atol=1e-4)
