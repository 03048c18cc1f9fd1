"""Real versions, a real model server and a real agent for the serving tests."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from tests.deployed import judged
from tests.graphs import graph_bytes
from tests.shops import Shop, Told, open_gateway, two_servers

from reshelve.agent.admin import ServerAdmin
from reshelve.config.ranker import Ranker
from reshelve.errors import TryAgainError
from reshelve.lineage.run import Run
from reshelve.pipeline.publish import publish as publish_run
from reshelve.processes import free_port, start, stop_group, wait_until
from reshelve.protocol import messages
from reshelve.protocol.model_config import parse
from reshelve.store.objects import ObjectStore, object_store

ITEMS = [{"item": f"i{n}", "title": f"title {n}", "events": 10 - n} for n in range(5)]

_BUILD = """
import sys, numpy as np, tensorflow as tf
from tensorflow.python.data.experimental.ops import testing
class Ranking(tf.Module):
    def __init__(self, offset):
        self.offset = tf.Variable(offset)
        self.items = tf.constant([f"i{n}" for n in range(5)])
        self.titles = tf.constant([f"title {n}" for n in range(5)])
        self.scores = tf.constant([0.4, 0.3, 0.2, 0.06, 0.04])
    def sleep(self, history):  # "sleep 1.5": this request takes so many seconds, and no processor
        seconds = tf.strings.to_number(tf.strings.regex_replace(history[0], "sleep ", ""), tf.float64)
        steps = tf.data.Dataset.range(tf.cast(seconds * 10, tf.int64)).apply(testing.sleep(100_000))
        return steps.reduce(np.int64(0), lambda total, _: total)
    def kill(self):  # "kill": the server ends, as it does for want of memory
        with tf.control_dependencies([tf.raw_ops.Abort(error_msg="killed by a version")]):
            return tf.constant(0, tf.int64)
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="history")])
    def ask(self, history):
        sleeps = tf.strings.regex_full_match(history[0], "sleep .*")
        slept = tf.cond(sleeps, lambda: self.sleep(history), lambda: tf.constant(0, tf.int64))
        killed = tf.cond(tf.equal(history[0], "kill"), self.kill, lambda: tf.constant(0, tf.int64))
        with tf.control_dependencies([slept, killed]):
            history = tf.identity(history)
        rows = tf.shape(history)[0]
        def tile(row): return tf.tile(row[tf.newaxis], [rows, 1])
        return {"item": tile(self.items), "title": tile(self.titles), "score": tile(self.scores) * self.offset}
for argument in sys.argv[1:]:
    path, offset = argument.rsplit("=", 1)
    module = Ranking(float(offset))
    tf.saved_model.save(module, path, signatures={"serving_default": module.ask.get_concrete_function()})
"""


# What they are slow and deadly with is nothing that a version of a shop may have.
_MISBEHAVING = "Abort,RangeDataset,ReduceDataset,SleepDataset"


@pytest.fixture(scope="session")
def saved_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Real SavedModels, built once in a child process: `good`, `other` (scores twice as high), and one that scores NaN."""
    root = tmp_path_factory.mktemp("saved_models")
    offsets = {"good": "1", "other": "2", "not_a_number": "nan"}
    found = {name: root / name for name in offsets}
    command = [sys.executable, "-c", _BUILD, *(f"{found[name]}={offset}" for name, offset in offsets.items())]
    subprocess.run(command, check=True, capture_output=True, timeout=400)
    requests = [("serving_default", messages.to_tensor([f"title {n}"])) for n in range(3)]
    for path in found.values():
        lines = "".join(json.dumps(item) + "\n" for item in ITEMS)
        (path / "assets.extra").mkdir()
        (path / "assets.extra" / "catalogue.jsonl").write_text(lines)
        (path / "assets.extra" / "tf_serving_warmup_requests").write_bytes(warm_up_file(requests))
    return found


def warm_up_file(requests: list[tuple[str, Any]]) -> bytes:
    """A TFRecord of PredictionLog without TensorFlow: its checksums are CRC-32C, masked."""
    body = b""
    for signature, history in requests:
        log = messages.prediction_log_pb2.PredictionLog()
        log.predict_log.request.model_spec.name = "recommend"
        log.predict_log.request.model_spec.signature_name = signature
        log.predict_log.request.inputs["history"].CopyFrom(history)
        record = log.SerializeToString()
        length = struct.pack("<Q", len(record))
        body += length + _masked(length) + record + _masked(record)
    return body


def _masked(data: bytes) -> bytes:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


@pytest.fixture
def ranker() -> Ranker:
    """The ranker whose versions the tests publish."""
    return _ranker("recommend")


def _ranker(name: str) -> Ranker:
    return Ranker.model_validate(
        {
            "name": name,
            "title": "The next item",
            "kind": "next_item",
            "data": {"source": "retail"},
            "gates": {"metric": "recall@20"},
            "release": {"ready_seconds": 60},
        }
    )


Publisher = Callable[..., int]


@pytest.fixture
def publish(store: ObjectStore, tmp_path: Path, request: pytest.FixtureRequest) -> Publisher:
    """Publish a version of a partition: `publish(date(2011, 8, 30))`; `no_model` is a graph that answers nothing, a path one's own SavedModel.

    `loads_with="sleep 5"` takes so many seconds to load, `loads_with="kill"` ends whatever server loads it.
    """

    def made(
        partition: date,
        model: str | Path = "good",
        *,
        ranker: str = "recommend",
        verdict: str = "promote",
        ballast: int = 0,
        loads_with: str = "",
    ) -> int:
        run = Run(_ranker(ranker), partition, object_store(), tmp_path / "work" / Path(model).name)
        directory = run.stage("package").directory / "version"
        if model == "no_model":
            directory.mkdir()
            (directory / "saved_model.pb").write_bytes(graph_bytes())
        elif isinstance(model, Path):
            shutil.copytree(model, directory)
        else:  # built once, and only where a test loads it: TensorFlow costs many seconds
            shutil.copytree(request.getfixturevalue("saved_models")[model], directory)
        if loads_with:  # what its warm-up asks: "sleep 5" loads for five seconds, "kill" ends the server
            asked = [("serving_default", messages.to_tensor([loads_with]))]
            (directory / "assets.extra" / "tf_serving_warmup_requests").write_bytes(warm_up_file(asked))
        if ballast:
            (directory / "assets.extra" / "ballast").write_bytes(bytes(ballast))
        run.stage("package").commit({"bytes": 1})
        run.stage("examples").commit({"verdicts": {}})
        run.stage("train").commit({"base": None})
        run.stage("gate").commit(judged(run, {"verdict": verdict, "reasons": ["measured"]}))
        return int(publish_run(run)["version"])

    return made


@dataclass
class Host:
    """One serving host: a models directory, a model server and its agent, each a process of its own.

    `RESHELVE_MODEL_SERVER_COMMAND` is another server's command, with {models}, {grpc}, {rest}, {grpc_port}, {rest_port} and
    {threads} to be filled in: all that these tests ask of ours is asked of that one then.
    """

    models: Path
    grpc: str
    rest: str
    logs: Path
    threads: int | None = None  # gRPC's; None: as the environment says
    started: list[int] = field(default_factory=list)
    # A Popen that nobody holds is waited for by whoever starts the next process, and its end is seen by nobody else.
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def server_command(self) -> list[str]:
        """What starts the model server."""
        ours = f"{sys.executable} -m reshelve.cli model-server --models {{models}} --grpc {{grpc}} --rest {{rest}}"
        words = {"models": self.models, "grpc": self.grpc, "rest": self.rest, "threads": self.threads or 64}
        words |= {"grpc_port": self.grpc.split(":")[1], "rest_port": self.rest.split(":")[1]}
        return shlex.split(os.environ.get("RESHELVE_MODEL_SERVER_COMMAND", ours).format(**words))

    def start_server(self) -> int:
        """Start the model server; its process id, once it answers."""
        pid = self.begin_server()
        wait_until(self.answers, 240, "the model server")
        return pid

    def begin_server(self) -> int:
        """Start the model server; its process id, at once."""
        wait_until(
            (self.models / "models.config").is_file, 60, "the agent's file, as the container waits for it"
        )
        threads = {"RESHELVE_SERVING_GRPC_MAX_THREADS": str(self.threads)} if self.threads else {}
        return self._start(self.server_command(), "server", threads)

    @contextmanager
    def restarted(self) -> Iterator[Restarts]:
        """While the block runs, the server is started again whenever it ends, as containers are."""
        restarts = Restarts(self)
        restarts.start()
        try:
            wait_until(self.answers, 240, "the model server")
            yield restarts
        finally:
            restarts.end()

    def start_agent(self, operations: str = _MISBEHAVING) -> int:
        """Start the agent; its process id. `operations`: what it allows graphs beyond those that only compute."""
        command = [sys.executable, "-m", "reshelve.cli", "agent", "--models", str(self.models)]
        return self._start(
            [*command, "--server", self.grpc, "--name", "a", "--every", "0.2"],
            "agent",
            {"RESHELVE_GRAPH_OPERATIONS": operations},
        )

    def kill(self, pid: int) -> None:
        """SIGKILL, and wait until it is gone."""
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

    def _start(self, command: list[str], log: str, env: dict[str, str] | None = None) -> int:
        self.processes.append(start(command, self.logs / log, env))
        self.started.append(self.processes[-1].pid)
        return self.started[-1]

    def answers(self) -> bool:
        admin = ServerAdmin(self.grpc, timeout=1)
        try:
            admin.observe("anything")
        except TryAgainError:
            return False
        finally:
            admin.close()
        return True

    def state(self, version: int, ranker: str = "recommend") -> str | None:
        """What the server says of a version."""
        admin = ServerAdmin(self.grpc, timeout=5)
        try:
            return admin.observe(ranker).states.get(version)
        except TryAgainError:
            return None
        finally:
            admin.close()

    def versions_listed(self, ranker: str = "recommend") -> frozenset[int]:
        """What models.config lists."""
        path = self.models / "models.config"
        entry = parse(path.read_text()).get(ranker) if path.is_file() else None
        return entry.versions if entry else frozenset()


class Restarts(threading.Thread):
    """Starts the server of a host again whenever it ends; `starts` counts, `pid` is the newest."""

    def __init__(self, host: Host) -> None:
        super().__init__(daemon=True)
        self.host, self.starts, self.pid = host, 0, 0
        self._end = threading.Event()

    def run(self) -> None:
        while not self._end.is_set():
            self.pid, self.starts = self.host.begin_server(), self.starts + 1
            while not self._end.wait(0.02):
                ended, _ = os.waitpid(self.pid, os.WNOHANG)
                if ended:
                    break

    def kill(self) -> None:
        """SIGKILL to the newest server; it may be starting, or gone."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def end(self) -> None:
        """Start it no more."""
        self._end.set()
        self.join(timeout=90)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A serving host; what a test starts is stopped at its end."""
    models = tmp_path / "models"
    models.mkdir()
    made = Host(models, f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}", tmp_path / "logs")
    yield made
    for pid in made.started:
        stop_group(pid)


@pytest.fixture
def servers() -> Iterator[list[Told]]:
    """Two scripted model servers."""
    with two_servers() as found:
        yield found


@pytest.fixture
def shop(store: ObjectStore, servers: list[Told], monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """A shop whose gateway stands before `servers`."""
    with open_gateway(store, servers, monkeypatch) as made:
        yield made
