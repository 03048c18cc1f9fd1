"""Titles are encoded once by each encoder: what is kept, under what, and what is not believed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from reshelve.config.ranker import Ranker
from reshelve.store.objects import ObjectStore
from reshelve.training import title_cache, title_tokens
from reshelve.training.device import Device
from reshelve.training.initial import build_model
from reshelve.training.model import RankerModel
from reshelve.training.spec import training_spec
from reshelve.training.title_cache import TitleCache, encoder_digest
from reshelve.training.title_tokens import Titles, set_vectors

TITLES = ["wooden heart", "red mug", "", "wooden heart", "a very long lamp of paper"]


@pytest.fixture
def train(
    tmp_path: Path, tiny_base: Path, make_ranker: Callable[..., Ranker], write_examples: Callable[..., Path]
) -> Path:
    """What a train stage leaves of a model with `head: titles`."""
    examples = write_examples(tmp_path / "examples", "search")
    ranker = make_ranker("search", **{"model.head": "titles", "model.vector_size": 64})
    spec = training_spec(ranker, identity="tiny", base=tiny_base, examples=examples, output=tmp_path)
    made = tmp_path / "train"
    model = build_model(spec, 0).eval()
    set_vectors(model, Titles.read(examples, 16, model.pad_id), Device(torch.device("cpu"), bf16=False))
    model.save(made)
    shutil.copy(tiny_base / "tokenizer.json", made)
    return made


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many titles the encoder read, each time."""
    seen: list[int] = []
    really = title_tokens.encoded

    def spied(model: RankerModel, titles: Titles, device: Device) -> torch.Tensor:
        seen.append(len(titles))
        return really(model, titles, device)

    monkeypatch.setattr(title_tokens, "encoded", spied)
    return seen


def test_only_titles_that_the_encoder_has_not_read_are_encoded(
    store: ObjectStore, train: Path, read: list[int]
) -> None:
    first = TitleCache(store, "search", train).vectors(TITLES)
    assert first.shape == (5, 64) and read == [3], "each text once, and an empty one not at all"
    np.testing.assert_array_equal(first[0], first[3])
    assert not first[2].any()
    np.testing.assert_allclose(np.linalg.norm(first[[0, 1, 4]], axis=1), 1.0, atol=1e-5)
    again = TitleCache(store, "search", train).vectors([*TITLES[::-1], "blue mug"])
    assert read == [3, 1]
    np.testing.assert_array_equal(again[:5], first[::-1])
    TitleCache(store, "search", train).vectors([*TITLES, "blue mug"])
    assert read == [3, 1]
    assert len(list(store.list("encoded/search/"))) == 2


def test_vectors_that_training_worked_out_are_not_made_again(
    store: ObjectStore, train: Path, read: list[int]
) -> None:
    cache = TitleCache(store, "search", train)
    given = np.eye(64, dtype=np.float32)[:2]
    assert cache.keep(["red mug", "blue mug"], given) == 2
    assert cache.keep(["red mug", "blue mug"], given) == 0
    np.testing.assert_array_equal(cache.vectors(["blue mug", "red mug"]), given[::-1])
    assert read == []


def changed_weights(train: Path, name: str) -> None:
    path = train / "model.safetensors"
    tensors = {key: value.clone() for key, value in load_file(path).items()}
    tensors[name].view(-1)[0] += 1.0
    save_file(tensors, path)


def changed_form(train: Path, key: str, value: object) -> None:
    path = train / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))


def changed_tokenizer(train: Path) -> None:
    path = train / "tokenizer.json"
    path.write_text(path.read_text() + "\n")


CHANGES: dict[str, tuple[Callable[[Path], None], bool]] = {
    "encoder": (lambda train: changed_weights(train, "encoder.embeddings.word_embeddings.weight"), True),
    "projection": (lambda train: changed_weights(train, "items.projection.weight"), True),
    "tokenizer": (changed_tokenizer, True),
    "length": (lambda train: changed_form(train, "max_length", 8), True),
    "popularity": (lambda train: changed_weights(train, "items.bias"), False),
    "scale": (lambda train: changed_weights(train, "items.log_scale"), False),
    "the catalogue's vectors": (lambda train: changed_weights(train, "items.vectors"), False),
    "the catalogue's size": (lambda train: changed_form(train, "items", 9), False),
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_encoder_is_another_where_its_vectors_would_be(train: Path, change: str) -> None:
    before = encoder_digest(train)
    alter, other = CHANGES[change]
    alter(train)
    assert (encoder_digest(train) != before) is other


def test_a_new_encoder_reads_all_titles(store: ObjectStore, train: Path, read: list[int]) -> None:
    first = TitleCache(store, "search", train).vectors(TITLES)
    changed_weights(train, "items.projection.weight")
    second = TitleCache(store, "search", train).vectors(TITLES)
    assert read == [3, 3] and np.abs(first - second).max() > 1e-4


@pytest.mark.parametrize("damage", ["torn", "other columns", "lengths"])
def test_what_cannot_be_a_vector_is_made_again(
    store: ObjectStore, train: Path, read: list[int], damage: str
) -> None:
    cache = TitleCache(store, "search", train)
    good = cache.vectors(TITLES)
    ((name, _),) = store.list("encoded/search/")
    if damage == "torn":
        found = store.get(name)
        assert found is not None
        store.put(name, found.body[: len(found.body) // 2])
    elif damage == "other columns":
        out = BytesIO()
        pq.write_table(pa.table({"key": [b"k" * 16]}), out)
        store.put(name, out.getvalue())
    else:
        store.delete([name])
        bad = np.full((3, 64), np.nan, np.float32)
        bad[1:] = 3.0
        cache._write(sorted({title for title in TITLES if title}), bad)
    np.testing.assert_array_equal(cache.vectors(TITLES), good)
    assert read == [3, 3]


def test_large_catalogues_are_kept_in_parts(
    store: ObjectStore, train: Path, read: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(title_cache, "PART", 7)
    titles = [f"mug {number}" for number in range(20)]
    first = TitleCache(store, "search", train).vectors(titles)
    assert len(list(store.list("encoded/search/"))) == 3
    np.testing.assert_array_equal(TitleCache(store, "search", train).vectors(titles), first)
    assert read == [20]
