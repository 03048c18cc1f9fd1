"""What the GPU check trains: BERT's shapes with random weights, and drawn examples. Nothing is fetched.

The lengths and the number of distinct tokens are those of the sample's real title pairs (benchmarks/bench_train.py):
8 to 39 tokens, 19 on average, of 2,000 different ones.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

TOKENS = 2000
ITEMS = 300
FEATURES = ("price", "views")
# name: width, layers, heads, feed-forward width, vocabulary. MiniLM-L6, BERT-base and BERT-large by their published sizes.
SHAPES = {
    "tiny": (64, 2, 4, 128, 2500),
    "MiniLM": (384, 6, 12, 1536, 30522),
    "110M": (768, 12, 12, 3072, 30522),
    "335M": (1024, 24, 16, 4096, 30522),
}


def write_base(directory: Path, name: str) -> int:
    """A base model of that shape in `directory`, with a word tokenizer; gives how many weights it has."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    width, layers, heads, inner, vocabulary = SHAPES[name]
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=vocabulary, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=inner
    )  # fmt: skip
    model = BertModel(config, add_pooling_layer=False)
    model.save_pretrained(directory)
    words = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3} | {f"w{n}": n for n in range(4, vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )  # fmt: skip
    tokenizer.save(str(directory / "tokenizer.json"))
    return sum(value.numel() for value in model.parameters())


def write_examples(directory: Path, kind: str, count: int, validation: int) -> Path:
    """`train.parquet` and `validation.parquet` of `kind`, which something can be learned from; gives `directory`."""
    random = np.random.default_rng(0)
    directory.mkdir(parents=True)
    for name, rows in (("train", count), ("validation", validation)):
        table = _pairs(random, rows) if kind == "pair" else _baskets(random, rows)
        pq.write_table(table, directory / f"{name}.parquet")
    if kind != "pair":
        items = {
            "index": range(ITEMS), "item_id": [f"i{n}" for n in range(ITEMS)],
            "title": [f"w{4 + n} w{500 + n}" for n in range(ITEMS)], "events": [1 + n % 50 for n in range(ITEMS)],
        }  # fmt: skip
        pq.write_table(pa.table({name: list(values) for name, values in items.items()}), directory / "catalogue.parquet")  # fmt: skip
    return directory


def _texts(random: np.random.Generator, rows: int) -> list[np.ndarray]:
    lengths = np.clip(np.rint(random.normal(19.4, 5, rows)), 8, 39).astype(int)
    return [random.integers(4, TOKENS, length).astype(np.int32) for length in lengths]


def _pairs(random: np.random.Generator, rows: int) -> pa.Table:
    """Wanted is what holds a low token first; five rows to a query."""
    ids, types = _texts(random, rows), []
    for tokens in ids:
        middle = len(tokens) // 2
        tokens[0], tokens[middle], tokens[-1] = 2, 3, 3
        types.append((np.arange(len(tokens)) > middle).astype(np.int8))
    wanted = [float(tokens[1] < TOKENS / 2) for tokens in ids]
    columns: dict[str, Any] = {
        "input_ids": pa.array(ids, pa.list_(pa.int32())), "token_type_ids": pa.array(types, pa.list_(pa.int8())),
        "label": wanted, "weight": np.ones(rows), "group": np.arange(rows) // 5,
        "features": pa.array([[want + noise, noise] for want, noise in zip(wanted, random.normal(size=rows), strict=True)]),
    }  # fmt: skip
    return pa.table(columns)


def _baskets(random: np.random.Generator, rows: int) -> pa.Table:
    """The next item follows from the first token of the basket; what follows it is drawn."""
    ids = _texts(random, rows)
    for tokens in ids:
        tokens[0], tokens[-1] = 2, 3
    targets = [[int(tokens[1]) % ITEMS, int(random.integers(ITEMS))][: 1 + n % 2] for n, tokens in enumerate(ids)]  # fmt: skip
    return pa.table({
        "input_ids": pa.array(ids, pa.list_(pa.int32())), "targets": pa.array(targets, pa.list_(pa.int32())),
        "weight": np.ones(rows),
    })  # fmt: skip


def spec(base: Path, examples: Path, output: Path, kind: str = "pair", **values: Any) -> Any:
    """A training job; `model`, `training` and whatever else the spec holds are in `values`."""
    from reshelve.config.ranker import Model, Training
    from reshelve.training.spec import TrainingSpec

    output.mkdir(parents=True, exist_ok=True)
    (output / "asked.json").write_text(json.dumps(values, default=str))
    model, training = values.pop("model", {}), values.pop("training", {})
    return TrainingSpec(
        identity="gpu-check", kind=kind, model=Model(base=str(base), max_length=48, **model),
        training=Training(**{"checkpoint_seconds": 80_000, **training}),
        base=base, examples=examples, output=output, **values,
    )  # fmt: skip
