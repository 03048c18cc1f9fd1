"""The n-grams of many texts, numbered: a batch at a time, so that memory is little more than that of the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from reshelve.features.postings import Postings
from reshelve.features.text import TextKeys

Array = np.ndarray

_BATCH = 4096


@dataclass(frozen=True)
class CutTexts:
    """`compact`: the key of each text. `found`: text → the places of its n-grams in `grams`, rising, without weights."""

    compact: list[str]
    grams: list[str]
    found: Postings


class _Batch(NamedTuple):
    """The n-grams of some texts, each once a text: numbers in order of discovery int32 [P], and how many of each text [n]."""

    numbers: Array
    lengths: Array


def cut_texts(texts: Sequence[str]) -> CutTexts:
    """Each text cut as a query is."""
    keys, compact, batches = TextKeys(), [], []
    known: dict[bytes, int] = {}
    for start in range(0, len(texts), _BATCH):
        found = keys.keys(tf.constant(texts[start : start + _BATCH]))
        compact += [text.decode() for text in found.compact.numpy().tolist()]
        # Those of a batch are many times fewer than there are, and it is strings that Python is slow at.
        distinct, places = tf.unique(found.grams)
        numbers = np.array(
            [known.setdefault(gram, len(known)) for gram in distinct.numpy().tolist()], np.int32
        )
        cells = _cells(found.gram_rows.numpy(), numbers[places.numpy()])
        cells = cells[np.append(True, cells[1:] != cells[:-1])[: len(cells)]]
        batches.append(_batch(cells, int(tf.size(found.compact))))
    # Sorted: no text may decide the order in which another's n-grams are summed.
    grams = sorted(known)
    rank = np.empty(len(grams), np.int32)
    rank[np.fromiter((known[gram] for gram in grams), np.int64, len(grams))] = np.arange(
        len(grams), dtype=np.int32
    )
    del known
    lengths = np.concatenate([np.empty(0, np.int64), *(batch.lengths for batch in batches)])
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    columns, end = np.empty(starts[-1], np.int32), int(starts[-1])
    while batches:  # from the last, each forgotten when it has its place
        batch = batches.pop()
        rows = np.repeat(np.arange(len(batch.lengths)), batch.lengths)
        numbers = _batch(_cells(rows, rank[batch.numbers]), len(batch.lengths)).numbers
        columns[end - len(numbers) : end] = numbers
        end -= len(numbers)
    none = np.empty((len(columns), 0), np.float32)
    return CutTexts(compact, [gram.decode() for gram in grams], Postings(starts, columns, none, len(grams)))


def _cells(rows: Array, numbers: Array) -> Array:
    """One int64 for each row and number, rising."""
    cells: Array = rows.astype(np.int64) << 32 | numbers
    cells.sort()
    return cells


def _batch(cells: Array, texts: int) -> _Batch:
    return _Batch((cells & 0xFFFF_FFFF).astype(np.int32), np.bincount(cells >> 32, minlength=texts))
