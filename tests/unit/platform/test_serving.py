"""The model server of one machine comes up where nothing has been released, with its metrics page."""

from __future__ import annotations

import tempfile
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest

from reshelve.agent.admin import ServerAdmin, ServerRefusedError
from reshelve.errors import ConfigurationError
from reshelve.platform.configuration import Machine, Ports
from reshelve.platform.serving import admin_socket, process_command, process_environment
from reshelve.processes import free_port, port_is_open, start, stop_group, wait_until


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path, Ports(grpc_port=free_port(), rest_port=free_port()))  # type: ignore[call-arg]


@pytest.mark.slow
def test_the_model_server_starts_without_any_version(machine: Machine) -> None:
    environment = process_environment("model-server", machine)
    process = start(process_command("model-server", machine), machine.logs / "model-server.log", environment)
    try:
        wait_until(
            lambda: process.poll() is not None or port_is_open(machine.ports.rest_port), 240, "the server"
        )
        assert process.poll() is None, (machine.logs / "model-server.log").read_text()
        url = f"http://127.0.0.1:{machine.ports.rest_port}/monitoring/prometheus/metrics"
        with urllib.request.urlopen(url, timeout=60) as answer:
            assert b":tensorflow:serving:request_count" in answer.read()
        refused = pytest.raises(ServerRefusedError, match="on the socket only")
        with closing(ServerAdmin(f"127.0.0.1:{machine.ports.grpc_port}")) as another_user, refused:
            another_user.reload([])
        command = process_command("agent", machine)
        with closing(ServerAdmin(command[command.index("--admin") + 1])) as agent:
            agent.reload([])
        folder = admin_socket(machine).parent
        assert folder.stat().st_mode & 0o777 == 0o700 and admin_socket(machine).is_socket()
    finally:
        stop_group(process.pid)
        process.wait()


def test_the_agents_list_is_left_as_it_is(machine: Machine) -> None:
    machine.models.mkdir(parents=True)
    (machine.models / "models.config").write_text("# the agent's")
    process_command("model-server", machine)
    assert (machine.models / "models.config").read_text() == "# the agent's"


@pytest.mark.parametrize("long", [False, True])
def test_the_socket_has_a_name_that_a_socket_can_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, long: bool
) -> None:
    places = tmp_path / "tmp"
    places.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(places))
    home = tmp_path / ("h" * 100 if long else "home")
    path = admin_socket(Machine(home))
    assert path.is_relative_to(places if long else home) and path.parent.stat().st_mode & 0o777 == 0o700
    assert path == admin_socket(Machine(home)) != admin_socket(Machine(home / "another"))


@pytest.mark.parametrize("there", ["a link", "a file", "open to all"])
def test_a_folder_that_somebody_else_has_put_there_is_not_taken(machine: Machine, there: str) -> None:
    folder = machine.home / "serving" / "admin"
    folder.parent.mkdir(parents=True)
    if there == "open to all":
        folder.mkdir()
        folder.chmod(0o777)
        assert admin_socket(machine).parent.stat().st_mode & 0o777 == 0o700
        return
    if there == "a link":
        (machine.home / "theirs").mkdir()
        folder.symlink_to(machine.home / "theirs")
    else:
        folder.touch()
    with pytest.raises(ConfigurationError, match="is not ours"):
        admin_socket(machine)
