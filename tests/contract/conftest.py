"""A model server reached from outside only, and small real SavedModels to serve.

`RESHELVE_MODEL_SERVER=host:port` (gRPC) and `RESHELVE_MODEL_SERVER_REST=host:port` (default: port 8501 of that host)
point the contract at another server, one that sees this machine's files; docs/reference/local-model-server.md gives
its flags. Without REST there, the tests of REST are skipped. `RESHELVE_MODEL_SERVER_THREADS` is that server's
`--grpc_max_threads`, where it is not four times the processors of this machine.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reshelve.modelserver.local_server import Addresses, running_model_server

from .calls import ELSEWHERE, THREADS, Caller, Gate, Listed, wait_for


@pytest.fixture(scope="session")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`saved_model(directory, kind, slope)`: put a small SavedModel there, complete at once."""
    import tensorflow as tf

    cache = tmp_path_factory.mktemp("saved-models")

    class Line(tf.Module):
        def __init__(self, slope: float) -> None:
            self.slope = tf.Variable(slope)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def line(self, x: Any) -> Any:
            return {"y": self.slope * x + 1.0}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def slow(self, x: Any) -> Any:
            turns = tf.cast(x[0], tf.int32)
            _, y = tf.while_loop(lambda i, _: i < turns, lambda i, y: (i + 1, tf.sin(y)), [0, self.slope * x])
            return {"y": y}

        @tf.function(
            input_signature=[
                tf.TensorSpec([None], tf.float32, name="a"),
                tf.TensorSpec([None], tf.int64, name="b"),
            ]
        )
        def pair(self, a: Any, b: Any) -> Any:
            return {
                "total": a + tf.cast(b, tf.float32),
                "parts": tf.stack([a, tf.cast(b, tf.float32)], axis=1),
            }

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
        def text(self, text: Any) -> Any:
            return {"upper": tf.strings.upper(text, encoding="utf-8"), "raw_bytes": text}

        @tf.function(input_signature=[tf.TensorSpec([], tf.string, name="path")])
        def held(self, path: Any) -> Any:
            with tf.control_dependencies([tf.io.write_file(path, "here")]):
                return {"path": tf.identity(path)}

        @tf.function(input_signature=[tf.TensorSpec([], tf.float32, name="s")])
        def scalar(self, s: Any) -> Any:
            return {"twice": 2.0 * s}

        @tf.function(
            input_signature=[
                tf.TensorSpec([None], tf.uint8, name="byte"),
                tf.TensorSpec([None], tf.int64, name="whole"),
                tf.TensorSpec([None], tf.bool, name="flag"),
            ]
        )
        def kinds(self, byte: Any, whole: Any, flag: Any) -> Any:
            return {"byte": tf.identity(byte), "whole": tf.identity(whole), "flag": tf.identity(flag)}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float16, name="h")])
        def half(self, h: Any) -> Any:
            return {"h": tf.identity(h)}

    def make(directory: Path, slope: float = 2.0) -> Path:
        ready = cache / str(slope)
        if not ready.is_dir():
            model = Line(slope)
            signatures = {
                "serving_default": model.line,
                "slow": model.slow,
                "pair": model.pair,
                "text": model.text,
                "held": model.held,
                "scalar": model.scalar,
                "kinds": model.kinds,
                "half": model.half,
            }
            tf.saved_model.save(model, str(ready), signatures=signatures)
        incoming = directory.parent / f".incoming-{directory.name}"
        shutil.copytree(ready, incoming)
        incoming.rename(directory)
        return directory

    return make


@pytest.fixture(scope="session")
def caller() -> Iterator[Caller]:
    """The server under contract: another one by environment, else ours with TensorFlow Serving's own flags."""
    if ELSEWHERE:
        rest = os.environ.get("RESHELVE_MODEL_SERVER_REST", f"{ELSEWHERE.rpartition(':')[0]}:8501")
        yield Caller(Addresses(ELSEWHERE, rest))
        return
    options = {
        "max_num_load_retries": 0,
        "allow_version_labels_for_unavailable_models": False,
        "file_system_poll_wait_seconds": 0.2,
        "grpc_max_threads": THREADS,
    }
    with running_model_server({}, options=options) as addresses:
        yield Caller(addresses)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """A gate, open at the end of the test at the latest."""
    made = Gate(tmp_path / "gate")
    yield made
    made.open()
    made.close()


@pytest.fixture(scope="session")
def two_versions(tmp_path_factory: pytest.TempPathFactory, saved_model: Callable[..., Path]) -> Path:
    """A base path with version 1 (2x+1) and version 2 (3x+1)."""
    base = tmp_path_factory.mktemp("m")
    saved_model(base / "1", 2.0)
    saved_model(base / "2", 3.0)
    return base


@pytest.fixture
def served(caller: Caller, two_versions: Path) -> Caller:
    """Model `m`, both versions loaded, labels stable → 1 and canary → 2."""
    caller.reload({"m": Listed(two_versions)})
    caller.wait_for("m", 1, "AVAILABLE")
    caller.wait_for("m", 2, "AVAILABLE")
    caller.reload({"m": Listed(two_versions, labels={"stable": 1, "canary": 2})})
    return caller


@pytest.fixture
def own_process() -> None:
    """For tests that start the local model server themselves, or look into it."""
    if ELSEWHERE:
        pytest.skip(f"it needs a process of its own, the contract runs against {ELSEWHERE}")


@pytest.fixture
def listed() -> type[Listed]:
    """The form of one model in a model list."""
    return Listed


@pytest.fixture
def until() -> Callable[..., None]:
    """`until(ready, what, seconds)`: poll or fail."""
    return wait_for
