"""Texts cut into the keys under which they are remembered, as a version cuts them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from scipy import sparse

from reshelve.features.text import TextKeys


@dataclass(frozen=True)
class CutTexts:
    """Of each text its words without what parts them, and which of the n-grams it has; these are sorted."""

    compact: list[str]
    grams: list[str]
    matrix: sparse.csr_matrix  # 1 where the text has the n-gram: [texts, grams]


def cut_texts(texts: list[str], batch: int = 4096) -> CutTexts:
    """Texts cut into keys as a version cuts them."""
    keys = TextKeys()
    compact: list[str] = []
    vocabulary: dict[bytes, int] = {}
    rows, columns = [], []
    for start in range(0, len(texts), batch):
        found = keys.keys(tf.constant(texts[start : start + batch]))
        compact += [text.decode() for text in found.compact.numpy()]
        rows.append(found.gram_rows.numpy().astype(np.int64) + start)
        columns.append(
            np.array([vocabulary.setdefault(g, len(vocabulary)) for g in found.grams.numpy()], np.int64)
        )
    place = (np.concatenate(rows), np.concatenate(columns)) if rows else (np.empty(0), np.empty(0))
    matrix = sparse.csr_matrix(
        (np.ones(len(place[0]), np.float32), place), (len(texts), len(vocabulary))
    ).sign()
    # Sorted: no text may decide the order in which another's n-grams are summed.
    grams = sorted(vocabulary)
    return CutTexts(
        compact, [gram.decode() for gram in grams], matrix[:, [vocabulary[gram] for gram in grams]]
    )
