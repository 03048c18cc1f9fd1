"""The model list, its labels and the states of versions, with loads that finish when the test says so."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from grpc import StatusCode

from reshelve.modelserver.servable_manager import ServableManager
from reshelve.modelserver.server_core import ServerCore
from reshelve.modelserver.server_options import ServerOptions
from reshelve.modelserver.serving_error import ServingError
from reshelve.modelserver.text_proto import read_config, read_metrics_path
from reshelve.protocol.messages import model_server_config_pb2


class Loads:
    """Stands for the loading of SavedModels: waits at a gate, fails where told to."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.bad: set[str] = set()
        self.held: set[str] | None = None  # these wait at the gate; None: all
        self.closed: list[str] = []

    def __call__(self, path: Path) -> Any:
        if self.held is None or path.name in self.held:
            assert self.gate.wait(20)
        if path.name in self.bad:
            raise ServingError(StatusCode.DATA_LOSS, f"{path.name} is bad")
        closed = self.closed

        class Loaded:
            def close(self) -> None:
                closed.append(path.name)

        return Loaded()


@pytest.fixture
def loads() -> Loads:
    return Loads()


@pytest.fixture
def core_with(loads: Loads) -> Iterator[Callable[..., ServerCore]]:
    made: list[ServerCore] = []

    def make(**flags: Any) -> ServerCore:
        options = ServerOptions(
            **{"file_system_poll_wait_seconds": 0.02, "max_num_load_retries": 0, **flags}  # type: ignore[arg-type]
        )
        core = ServerCore(ServableManager(loads, options), options)
        core.start()
        made.append(core)
        return core

    yield make
    loads.gate.set()
    for core in made:
        core.close()


def config(base: Path, versions: list[int], **labels: int) -> model_server_config_pb2.ModelServerConfig:
    listed = models(base, m=versions)
    for label, version in labels.items():
        listed.model_config_list.config[0].version_labels[label] = version
    return listed


def models(base: Path, **versions: list[int]) -> model_server_config_pb2.ModelServerConfig:
    listed = model_server_config_pb2.ModelServerConfig()
    listed.model_config_list.SetInParent()
    for name, numbers in versions.items():
        model = listed.model_config_list.config.add(
            name=name, base_path=str(base), model_platform="tensorflow"
        )
        model.model_version_policy.specific.versions.extend(numbers)
    return listed


def states(core: ServerCore, model: str = "m") -> dict[int, str]:
    return {status.number: status.state.name for status in core.manager.statuses(model)}


def wait_for_states(core: ServerCore, expected: dict[int, str], model: str = "m") -> None:
    deadline = time.monotonic() + 20
    while states(core, model) != expected:
        assert time.monotonic() < deadline, states(core, model)
        time.sleep(0.005)


class Refused(threading.Thread):
    """A reload that must fail, with its error."""

    def __init__(self, core: ServerCore, listed: model_server_config_pb2.ModelServerConfig) -> None:
        super().__init__(daemon=True)
        self._core, self._listed = core, listed
        self.message = ""

    def run(self) -> None:
        with pytest.raises(ServingError) as refused:
            self._core.reload(self._listed)
        self.message = refused.value.message


@pytest.fixture
def base(tmp_path: Path) -> Path:
    for number in ("1", "2", "3"):
        (tmp_path / number).mkdir()
    return tmp_path


def test_the_old_version_serves_until_the_new_one_is_available(
    core_with: Any, loads: Loads, base: Path
) -> None:
    core = core_with()
    core.reload(config(base, [1]))
    loads.gate.clear()
    core.reload(config(base, [2]))
    wait_for_states(core, {1: "AVAILABLE", 2: "LOADING"})
    loads.gate.set()
    wait_for_states(core, {1: "END", 2: "AVAILABLE"})
    assert loads.closed == ["1"]


def test_a_version_in_use_is_unloaded_after_its_last_request(
    core_with: Any, loads: Loads, base: Path
) -> None:
    core = core_with()
    core.reload(config(base, [1]))
    with core.manager.lend("m", None) as (version, _):
        core.reload(config(base, [2]))
        wait_for_states(core, {1: "UNLOADING", 2: "AVAILABLE"})
        assert (version, loads.closed) == (1, [])
    wait_for_states(core, {1: "END", 2: "AVAILABLE"})
    assert loads.closed == ["1"]


def test_a_bad_version_does_not_hold_up_a_good_one(core_with: Any, loads: Loads, base: Path) -> None:
    loads.bad = {"3"}
    core = core_with(max_num_load_retries=1000, load_retry_interval_seconds=0.05)
    core.reload(config(base, [1]))
    core.reload(config(base, [2, 3]))
    wait_for_states(core, {1: "END", 2: "AVAILABLE", 3: "LOADING"})
    core.reload(config(base, [2]))
    wait_for_states(core, {1: "END", 2: "AVAILABLE", 3: "END"})


def test_a_list_with_labels_starts_cold_only_with_the_flag(core_with: Any, base: Path) -> None:
    with pytest.raises(ServingError, match="not currently available for inference"):
        core_with(allow_version_labels_for_unavailable_models=False).reload(config(base, [1, 2], stable=1))
    core = core_with(allow_version_labels_for_unavailable_models=True)
    core.reload(config(base, [1, 2], stable=1))
    wait_for_states(core, {1: "AVAILABLE", 2: "AVAILABLE"})
    with pytest.raises(ServingError, match="version 3 of model m"):
        core.reload(config(base, [1, 2, 3], stable=3))


def test_an_empty_list_takes_no_action_and_allows_a_first_one(core_with: Any, base: Path) -> None:
    core = core_with()
    core.reload(model_server_config_pb2.ModelServerConfig())
    core.reload(config(base, [1]))
    assert states(core) == {1: "AVAILABLE"}
    with pytest.raises(ServingError, match="from one ModelConfigList to another"):
        core.reload(model_server_config_pb2.ModelServerConfig())


def test_the_model_list_is_read_from_a_text_proto(tmp_path: Path, base: Path) -> None:
    path = tmp_path / "models.config"
    path.write_text(text_format.MessageToString(config(base, [1], stable=1)))
    assert read_config(path) == config(base, [1], stable=1)
    path.write_text("# nothing yet")
    assert read_config(path).WhichOneof("config") is None


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(None, "NOT_FOUND: {}; No such file or directory", id="missing"),
        pytest.param(b"", "INVALID_ARGUMENT: {}; Invalid argument", id="empty"),
        pytest.param(b"model_config_list { nonsense }", "INVALID_ARGUMENT: Invalid protobuf file: '{}'", id="no proto"),
        pytest.param(b"\xff\xfe", "INVALID_ARGUMENT: Invalid protobuf file: '{}'", id="no text"),
    ],
)  # fmt: skip
def test_a_server_without_a_model_list_says_what_it_misses(
    tmp_path: Path, content: bytes | None, problem: str
) -> None:
    path = tmp_path / "models.config"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ServingError) as refused:
        read_config(path)
    assert str(refused.value) == problem.format(path)


@pytest.mark.parametrize(
    ("content", "path"),
    [
        pytest.param("prometheus_config { enable: true }", "/monitoring/prometheus/metrics", id="enabled"),
        pytest.param('prometheus_config { enable: true path: "/page" }', "/page", id="elsewhere"),
        pytest.param('prometheus_config { path: "/page" }', None, id="not enabled"),
        pytest.param("# nothing", None, id="nothing"),
    ],
)
def test_a_monitoring_config_says_where_the_page_is(tmp_path: Path, content: str, path: str | None) -> None:
    (tmp_path / "monitoring.config").write_text(content)
    assert read_metrics_path(str(tmp_path / "monitoring.config")) == path


def test_the_first_list_waits_for_all_that_it_loads(core_with: Any, loads: Loads, base: Path) -> None:
    core = core_with(num_load_threads=1)
    loads.gate.clear()
    loads.held = {"2"}
    first = threading.Thread(target=core.reload, args=(config(base, [1, 2]),))
    first.start()
    wait_for_states(core, {1: "AVAILABLE", 2: "LOADING"})
    first.join(0.1)
    assert first.is_alive(), "version 1 is AVAILABLE, and version 2 loads"
    loads.gate.set()
    first.join(20)
    assert states(core) == {1: "AVAILABLE", 2: "AVAILABLE"}


def test_a_version_that_ends_first_decides_for_its_model(core_with: Any, loads: Loads, base: Path) -> None:
    loads.bad, loads.held = {"2"}, {"1"}
    loads.gate.clear()
    core = core_with()
    first = Refused(core, config(base, [1, 2]))
    first.start()
    wait_for_states(core, {1: "LOADING", 2: "END"})
    loads.gate.set()
    first.join(20)
    assert first.message == (
        "1 servable(s) did not become available: {{{name: m version: 2} due to error: DATA_LOSS: 2 is bad}, }"
    )
    assert states(core)[1] == "AVAILABLE", "it was waited for all the same"


def test_the_newest_version_decides_when_several_have_ended(core_with: Any, loads: Loads, base: Path) -> None:
    core = core_with()
    core.reload(models(base))
    loads.bad, loads.held = {"2"}, {"3"}
    loads.gate.clear()
    second = Refused(core, models(base, a=[1, 2], b=[3]))
    second.start()
    wait_for_states(core, {1: "AVAILABLE", 2: "END"}, "a")
    loads.gate.set()
    second.join(20)
    assert second.message.startswith("1 model(s) did not become available: {{{name: a version: 2} due to")
