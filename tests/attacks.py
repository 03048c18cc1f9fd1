"""SavedModels that do more than compute, made with TensorFlow itself as an attacker would: `python -m tests.attacks FOLDER`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

TEXTS = tf.TensorSpec([None], tf.string, name="history")
Graph = Callable[[tf.Tensor], tf.Tensor]


class Asked(tf.Module):
    """Answers `history` with what `graph` makes of it."""

    def __init__(self, graph: Graph, **held: Any) -> None:
        super().__init__()
        self.held = held
        self.ask = tf.function(
            lambda history: {"score": graph(history)}, input_signature=[TEXTS], autograph=False
        )

    def save(self, path: Path) -> None:
        tf.saved_model.save(self, str(path), signatures={"serving_default": self.ask.get_concrete_function()})


def after(operation: Callable[[tf.Tensor], Any]) -> Graph:
    """A harmless answer, after `operation` was done."""

    def graph(history: tf.Tensor) -> tf.Tensor:
        with tf.control_dependencies([operation(history)]):
            return tf.strings.length(history)

    return graph


def in_a_branch(history: tf.Tensor) -> tf.Tensor:
    """Deep in functions of functions: a loop within a branch."""

    def body(number: tf.Tensor, text: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return number + 1, tf.io.read_file("/etc/hostname")

    def loop() -> tf.Tensor:
        return tf.while_loop(lambda number, _: number < 1, body, (tf.constant(0), tf.constant("")))[1]

    return tf.cond(tf.equal(history[0], "now"), loop, lambda: tf.constant(""))[tf.newaxis]


def from_a_dataset(history: tf.Tensor) -> tf.Tensor:
    lines = tf.data.TextLineDataset("/etc/hostname")
    return lines.reduce(tf.constant(""), lambda found, line: found + line)[tf.newaxis]


GRAPHS: dict[str, tuple[Graph, str]] = {
    "reads": (lambda history: tf.map_fn(tf.io.read_file, history), "ReadFile"),
    "reads in a branch": (in_a_branch, "ReadFile"),
    "writes": (after(lambda history: tf.io.write_file("/tmp/attack", history[0])), "WriteFile"),
    "lists": (lambda history: tf.io.matching_files(history), "MatchingFiles"),
    "prints to a file": (after(lambda history: tf.print(history, output_stream="file:///tmp/attack")), "PrintV2"),
    "saves": (
        after(lambda history: tf.raw_ops.SaveV2(prefix=history[0], tensor_names=["t"], shape_and_slices=[""], tensors=[history])),
        "SaveV2",
    ),
    "restores": (
        lambda history: tf.raw_ops.RestoreV2(prefix=history[0], tensor_names=["t"], shape_and_slices=[""], dtypes=[tf.string])[0],
        "RestoreV2",
    ),
    "runs Python": (lambda history: tf.numpy_function(lambda text: text, [history], tf.string), "PyFunc"),
    "runs Python eagerly": (lambda history: tf.py_function(lambda text: text, [history], tf.string), "EagerPyFunc"),
    "reads a dataset": (from_a_dataset, "FlatMapDataset"),
    "reads an iterator": (
        lambda history: tf.raw_ops.IteratorFromStringHandleV2(string_handle=history[0]) is None or history, "IteratorFromStringHandleV2"
    ),
    "dumps": (
        lambda history: tf.raw_ops.DebugIdentityV2(input=history, debug_urls=["file:///tmp/attack"]), "DebugIdentityV2"
    ),
    "ends the server": (after(lambda history: tf.raw_ops.Abort(error_msg="over")), "Abort"),
}  # fmt: skip


def with_asset(path: Path, filename: str | None = None) -> None:
    """A table that is filled from a file of the version; `filename`: the file that is named in place of it."""
    words = path.parent / "words.txt"
    words.write_text("red\nblue\n")
    initializer = tf.lookup.TextFileInitializer(
        str(words),
        tf.string,
        tf.lookup.TextFileIndex.WHOLE_LINE,
        tf.int64,
        tf.lookup.TextFileIndex.LINE_NUMBER,
    )
    table = tf.lookup.StaticHashTable(initializer, -1)
    Asked(table.lookup, table=table).save(path)
    if filename is not None:
        rewrite(path, lambda saved: setattr(saved.meta_graphs[0].asset_file_def[0], "filename", filename))


def rewrite(path: Path, change: Callable[[SavedModel], object]) -> None:
    """Change a SavedModel's message."""
    file = path / "saved_model.pb"
    saved = SavedModel.FromString(file.read_bytes())
    change(saved)
    file.write_bytes(saved.SerializeToString())


def harmless(path: Path) -> None:
    """A graph that only computes, with a variable and a table."""
    count = tf.Variable([2, 3])
    keys = tf.lookup.KeyValueTensorInitializer(tf.constant(["red"]), tf.constant([1]))
    table = tf.lookup.StaticHashTable(keys, 0)
    Asked(lambda history: table.lookup(history) + tf.reduce_sum(count), table=table, count=count).save(path)


def main() -> None:
    """All of them, and `harmless`, each in a folder of its name."""
    root = Path(sys.argv[1])
    for name, (graph, _) in GRAPHS.items():
        Asked(graph).save(root / name)
    harmless(root / "harmless")


if __name__ == "__main__":
    main()
