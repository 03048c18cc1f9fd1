"""The model server of one machine comes up where nothing has been released, with its metrics page."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest

from reshelve.platform.configuration import Machine, Ports
from reshelve.platform.serving import process_command, process_environment
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
    finally:
        stop_group(process.pid)
        process.wait()


def test_the_agents_list_is_left_as_it_is(machine: Machine) -> None:
    machine.models.mkdir(parents=True)
    (machine.models / "models.config").write_text("# the agent's")
    process_command("model-server", machine)
    assert (machine.models / "models.config").read_text() == "# the agent's"
