"""The packaged MiniLM beside its own float32 SavedModel in the model server, and beside other runtimes' int8 of the same weights.

    python benchmarks/bench_serve.py [--rounds 30] [--peers DIR] [--server HOST:PORT --versions DIR] [--layers 2] [--shapes 1x32]

Two columns. `served`: strings over gRPC to the model server, tokenising and all. `model`: token ids to logits in one
process, as the other runtimes offer it. One interleaved run: every round asks each once, in an order that turns, and a
ratio is the median of the rounds' ratios to float32. Prints a table, then one JSON line.

Without `--server` a local model server is started. With it, write the versions first (`--versions DIR --write`), serve
them from DIR under the names of its directories, and come back. `--layers` also takes a version that keeps so many
layers: what distillation to it would cost; its scores mean nothing here.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np
import tensorflow as tf
from bench_package import BASE, SHAPES, minilm, titles
from serve_peers import peers

from reshelve.client.client import RankingClient
from reshelve.compression.calibration import calibrate
from reshelve.compression.measure import GraphScorer, agreement
from reshelve.export.batches import batches, padded, text_rows
from reshelve.export.catalogue import PackagedCatalogue
from reshelve.export.layers import FloatLayers, Layers
from reshelve.export.precisions.int8_layers import Int8Layers
from reshelve.export.tokenizer import TokenBatch
from reshelve.kinds.pair.export import PairModule
from reshelve.model.int8 import quantize
from reshelve.model.trained import TrainedModel
from reshelve.modelserver.local_server import running_model_server
from reshelve.reporting.words import figure

ALPHA = 0.7
GOALS = {"1x32": 0.40, "32x64": 0.45, "128x64": 0.45}
THIN_GOAL = 0.20
QUERY_WORDS = 8
REST_SECONDS = 0.01  # lets a runtime's spinning threads come to rest before the next is timed
Call = Callable[[], object]


class Bench:
    """The model, its layers by name, and the requests."""

    def __init__(self, layers: int | None) -> None:
        names = titles(600)
        self.model = minilm()
        pairs = [(names[n], names[(n * 7 + 3) % len(names)]) for n in range(len(names))]
        self.rows = text_rows(BASE / "tokenizer.json", 64, pairs)
        # Titles whose pair with the query has exactly so many tokens.
        self.items = {length: f"of-{length}" for _, length in SHAPES}
        texts = [" ".join(["bag"] * (length - QUERY_WORDS - 3)) for length in self.items]
        ids = [*(f"sku{n}" for n in range(len(names))), *self.items.values()]
        self.catalogue = PackagedCatalogue(ids, [*names, *texts], [1] * len(ids))
        self.versions: dict[str, tuple[TrainedModel, Layers]] = {
            "float32": (self.model, FloatLayers(self.model)),
            "packaged": (self.model, self._int8(self.model)),
        }
        if layers:
            thin = _lowest(self.model, layers)
            self.versions[f"packaged_{layers}_layers"] = (thin, self._int8(thin))

    def _int8(self, model: TrainedModel) -> Layers:
        return Int8Layers(model, quantize(model, calibrate(model, batches(self.rows[:128])), ALPHA))

    def write(self, directory: Path) -> dict[str, Path]:
        """Base paths by name, each with version 1; what is there already is taken."""
        found = {}
        for name, (model, layers) in self.versions.items():
            found[name] = directory / name
            if not (found[name] / "1" / "saved_model.pb").is_file():
                module = PairModule(model, layers, BASE / "tokenizer.json", self.catalogue, None)
                tf.saved_model.save(module, str(found[name] / "1"), signatures=module.signatures)
        return found

    def request(self, batch: int, length: int) -> dict[str, list[str]]:
        """One query and the ids of `batch` items, each pair of `length` tokens."""
        return {"query": [" ".join(["cup"] * QUERY_WORDS)], "item": [self.items[length]] * batch}


def _lowest(model: TrainedModel, layers: int) -> TrainedModel:
    shape = model.document.architecture.model_copy(update={"num_hidden_layers": layers})
    return TrainedModel(model.document.model_copy(update={"architecture": shape}), model.tensors)


def token_batch(batch: int, length: int) -> TokenBatch:
    """Token ids drawn at random, without padding."""
    ids = np.random.default_rng(0).integers(1000, 30000, (batch, length)).astype(np.int32)
    types = np.zeros_like(ids)
    types[:, QUERY_WORDS + 2 :] = 1
    return TokenBatch(ids, np.full(batch, length, np.int32), types)


def in_turn(calls: dict[str, Call], rounds: int, rows: int) -> dict[str, dict[str, float]]:
    """p50 and p99 in milliseconds, rows a second, and the ratio to the first call's time in the same round."""
    names = list(calls)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-2, rounds):  # the first two load, pack and trace
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            time.sleep(REST_SECONDS)
            start = time.perf_counter()
            calls[name]()
            if number >= 0:
                taken[name].append((time.perf_counter() - start) * 1000)
    first = np.array(taken[names[0]])
    return {
        name: {
            "p50_ms": round(float(np.median(times)), 2),
            "p99_ms": round(float(np.quantile(times, 0.99)), 2),
            "rows_per_s": round(rows * 1000 / float(np.mean(times)), 1),
            "ratio": round(float(np.median(np.array(times) / first)), 3),
        }
        for name, times in taken.items()
    }


@contextmanager
def served(address: str | None, models: dict[str, Path], threads: int) -> Iterator[RankingClient]:
    """A client of the server at `address`, or of a local one that is started with `models`."""
    if address:
        with RankingClient(address) as client:
            yield client
        return
    options = {"tensorflow_intra_op_parallelism": threads}
    with running_model_server(models, options=options) as found, RankingClient(found.grpc) as client:
        yield client


def newest(client: RankingClient, name: str, inputs: dict[str, list[str]]) -> np.ndarray:
    """The scores of version 1."""
    return client.predict(name, inputs, version=1, timeout=120).outputs["score"]


def measured(bench: Bench, client: RankingClient, args: argparse.Namespace, work: Path) -> dict[str, object]:
    """Every shape, both columns."""
    ours = {
        name: GraphScorer(model, layers, args.threads) for name, (model, layers) in bench.versions.items()
    }
    calibration = [padded(bench.rows[start : start + 8]) for start in range(0, 128, 8)]
    theirs, absent = peers(args.peers, bench.model, calibration, args.threads, work)
    everyone = {**ours, **theirs}
    held_out = padded(bench.rows[300:428])
    expected = ours["float32"](held_out)
    shapes: dict[str, object] = {}
    for batch, length in SHAPES:
        if f"{batch}x{length}" not in args.shapes:
            continue
        rounds = args.rounds if batch < 64 else max(3, args.rounds // 3)
        tokens, request = token_batch(batch, length), bench.request(batch, length)
        # Bound here: a loop's variables would all be the last ones'.
        alone = {name: lambda score=score, tokens=tokens: score(tokens) for name, score in everyone.items()}
        asked = {name: lambda n=name, request=request: newest(client, n, request) for name in ours}
        shapes[f"{batch}x{length}"] = {
            "served": in_turn(asked, rounds, batch),
            "model": in_turn(alone, rounds, batch),
        }
    agree = {name: agreement([expected], [score(held_out)]).spearman for name, score in everyone.items()}
    return {"threads": args.threads, "shapes": shapes, "agreement": agree, "absent": absent, "goals": GOALS}


def show(found: dict) -> None:
    """The table."""
    print(f"{'':12}{'':32}{'p50 ms':>9}{'p99 ms':>9}{'rows/s':>9}{'ratio':>8}{'goal':>7}{'agrees':>9}")
    for shape, columns in found["shapes"].items():
        for column, rows in columns.items():
            for name, row in rows.items():
                thin = name.endswith("layers")
                goal = THIN_GOAL if thin else GOALS[shape] if name == "packaged" else ""
                agrees = "" if thin else figure(found["agreement"].get(name))
                print(
                    f"{shape:8}{column:8}{name:28}{row['p50_ms']:9.2f}{row['p99_ms']:9.2f}{row['rows_per_s']:9.1f}"
                    f"{row['ratio']:8.2f}{goal!s:>7}{agrees:>9}"
                )
    for name, reason in found["absent"].items():
        print(f"absent: {name} ({reason})")


def main() -> None:
    """Build, serve, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rounds", type=int, default=30, help="Rounds of the small shapes; 128 rows: a third."
    )
    parser.add_argument("--threads", type=int, default=2, help="Threads of every runtime.")
    parser.add_argument("--shapes", nargs="+", choices=GOALS, default=list(GOALS), help="Batch x length.")
    parser.add_argument("--peers", type=Path, help="Where pip put onnx, onnxruntime, openvino and nncf.")
    parser.add_argument("--server", help="host:port (gRPC) of a model server that serves --versions.")
    parser.add_argument("--versions", type=Path, help="Where the versions are, or are written.")
    parser.add_argument("--write", action="store_true", help="Write the versions and leave.")
    parser.add_argument("--layers", type=int, help="Also a version of so many layers.")
    args = parser.parse_args()
    bench = Bench(args.layers)
    with tempfile.TemporaryDirectory(prefix="bench-serve-") as temporary:
        work = Path(temporary)
        models = bench.write((args.versions or work / "versions").absolute())
        if args.write:
            print(*models.values(), sep="\n")
            return
        with served(args.server, models, args.threads) as client:
            found = measured(bench, client, args, work)
    show(found)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
