"""Starts of a model server: what keeps it from one, what it waits for, and what a killed one leaves behind."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reshelve.errors import DataError
from reshelve.modelserver.local_server import Addresses, running_model_server
from reshelve.processes import free_port, port_is_open, start, stop_group

from .calls import MISSING, Caller, Gate, refused, spoil_garbage

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_process")]

COMMAND = [sys.executable, "-m", "reshelve.cli", "model-server", "--models"]


class Own:
    """A server of the test's own on a models directory, and its log."""

    def __init__(self, models: Path, **flags: object) -> None:
        self.models, self.log = models, models.parent / "log"
        self._flags = {f"RESHELVE_SERVING_{name.upper()}": str(value) for name, value in flags.items()}
        self._flags["RESHELVE_LOG"] = "json"
        self._process: subprocess.Popen[bytes] | None = None
        self.addresses = Addresses("", "")

    def write(self, models: str) -> None:
        """Its model list."""
        (self.models / "models.config").write_text(f"model_config_list {{ {models} }}")

    def start(self) -> None:
        self.stop()
        self.log.unlink(missing_ok=True)
        self.addresses = Addresses(f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}")
        where = ["--grpc", self.addresses.grpc, "--rest", self.addresses.rest]
        self._process = start([*COMMAND, str(self.models), *where], self.log, self._flags)

    def exit_code(self) -> int:
        """The code it ends with, by itself."""
        assert self._process is not None
        return self._process.wait(120)

    def listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()
        return port_is_open(int(self.addresses.grpc.rpartition(":")[2]))

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        if self._process is not None:
            stop_group(self._process.pid)
            self._process.wait()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Callable[..., Own]]:
    """`own(**flags)`: a server of its own, not started yet, with `own.models` to put versions into."""
    made: list[Own] = []

    def make(**flags: object) -> Own:
        (tmp_path / "models").mkdir()
        made.append(Own(tmp_path / "models", max_num_load_retries=0, **flags))
        return made[-1]

    yield make
    for server in made:
        server.stop()


def model(base: Path, versions: list[int], labels: str = "") -> str:
    listed = " ".join(f"versions: {version}" for version in versions)
    return (
        f'config {{ name: "m" base_path: "{base}" model_platform: "tensorflow" '
        f"model_version_policy {{ specific {{ {listed} }} }} {labels} }}"
    )


def test_a_version_that_cannot_load_ends_every_start(own: Any, saved_model: Any) -> None:
    server = own()
    spoil_garbage(saved_model(server.models / "m" / "1"))
    server.write(model(server.models / "m", [1]))
    for _ in range(2):
        server.start()
        assert server.exit_code() == 255
        assert (
            "Failed to start server. Error: UNKNOWN: 1 servable(s) did not become available: "
            "{{{name: m version: 1} due to error: DATA_LOSS: Can't parse "
        ) in server.log.read_text()


def test_no_model_list_ends_a_start(own: Any) -> None:
    server = own()
    server.start()
    assert server.exit_code() == 255
    path = server.models / "models.config"
    problem = f"Failed to start server. Error: NOT_FOUND: {path}; No such file or directory"
    assert problem in server.log.read_text()


LABEL = 'version_labels { key: "stable" value: 2 }'


def test_a_label_in_the_first_list_ends_a_start_without_the_flag(own: Any, saved_model: Any) -> None:
    server = own(allow_version_labels_for_unavailable_models=False)
    saved_model(server.models / "m" / "2")
    server.write(model(server.models / "m", [2], LABEL))
    server.start()
    assert server.exit_code() == 255
    assert (
        "Error: FAILED_PRECONDITION: Request to assign label to version 2 of model m, which is not currently available "
        "for inference"
    ) in server.log.read_text()


def test_with_the_flag_a_label_may_point_at_nothing(own: Any, saved_model: Any, until: Any) -> None:
    server = own(allow_version_labels_for_unavailable_models=True)
    saved_model(server.models / "m" / "1")
    server.write(model(server.models / "m", [1], LABEL))
    server.start()
    until(server.listens, "the server", 120)
    caller = Caller(server.addresses)
    assert caller.predict("m", version=1)[0] == 1
    error = refused(lambda: caller.predict("m", label="stable"))
    assert (error.code(), error.details()) == (MISSING, "Servable not found for request: Specific(m, 2)")


def test_a_start_waits_for_all_versions_and_a_killed_one_leaves_nothing(
    own: Any, saved_model: Any, gate: Gate, until: Any
) -> None:
    """Labels answer as soon as the port is open: they are set before anything loads."""
    server = own()
    saved_model(server.models / "m" / "1")
    gate.holds_the_load_of(saved_model(server.models / "m" / "2"))
    server.write(model(server.models / "m", [1, 2], LABEL))
    before = contents(server.models)

    server.start()
    until(lambda: moved(server, 1, "AVAILABLE") and moved(server, 2, "LOADING"), "the loads", 120)
    assert not server.listens(), "version 1 is AVAILABLE, version 2 loads"
    server.kill()
    assert contents(server.models) == before

    gate.open()
    server.start()
    until(server.listens, "the server", 120)
    assert Caller(server.addresses).predict("m", label="stable")[0] == 2


def moved(server: Own, version: int, state: str) -> bool:
    """Whether the log says so; TensorFlow may write into the middle of one of its lines."""
    text = server.log.read_text() if server.log.exists() else ""
    events = (found.replace(" ", "") + "," for found in re.findall(r"\{([^{}\n]*)\}", text))
    return any(f'"version":{version},' in event and f'"state":"{state}",' in event for event in events)


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_a_model_that_cannot_be_loaded_is_bad_data_to_who_runs_a_server(
    saved_model: Any, tmp_path: Path
) -> None:
    spoil_garbage(saved_model(tmp_path / "1"))
    expected = "did not become available.*name: m version: 1.*DATA_LOSS: Can't parse"
    with pytest.raises(DataError, match=expected), running_model_server({"m": tmp_path}):
        pass


_IN_PROCESS = """
import sys
from pathlib import Path
import numpy as np
from reshelve.modelserver.servables import Servable
from reshelve.modelserver.server_options import ServerOptions
from reshelve.modelserver.warm_up import warm_up
servable = Servable.load(Path(sys.argv[1]), ServerOptions())
warm_up(servable, Path(sys.argv[1]))
print(servable.predict("", {"x": np.array([1], np.float32)}).outputs["y"].tolist(), "tensorflow" in sys.modules)
"""


def test_serving_never_imports_tensorflows_python_api(saved_model: Any, tmp_path: Path) -> None:
    """It would cost every start ten seconds of processor time; see `reshelve.modelserver.runtime`."""
    command = [sys.executable, "-c", _IN_PROCESS, str(saved_model(tmp_path / "1"))]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert output.split("\n")[-2] == "[3.0] False"
