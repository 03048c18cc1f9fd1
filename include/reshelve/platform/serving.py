"""The local model server and the agent beside it: two processes, as on a serving host."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from reshelve.modelserver.local_server import CONFIG_FILE, MONITORING, MONITORING_FILE, model_list

if TYPE_CHECKING:
    from reshelve.platform.configuration import Machine

PROCESSES = ("model-server", "agent")


def process_command(name: str, machine: Machine) -> list[str]:
    """The command of the model server or of its agent."""
    machine.models.mkdir(parents=True, exist_ok=True)
    reshelve = str(Path(sys.executable).with_name("reshelve"))
    grpc = f"127.0.0.1:{machine.ports.grpc_port}"
    if name == "model-server":
        _write_first_list(machine.models)
        rest = f"127.0.0.1:{machine.ports.rest_port}"
        return [reshelve, "model-server", "--models", str(machine.models), "--grpc", grpc, "--rest", rest]
    return [reshelve, "agent", "--models", str(machine.models), "--server", grpc, "--name", "local"]


def process_environment(name: str, machine: Machine) -> dict[str, str]:
    """What the process is told beside the platform's own variables: a model server shows its Prometheus page."""
    if name != "model-server":
        return {}
    path = machine.home / MONITORING_FILE
    path.write_text(MONITORING, encoding="utf-8")
    return {"RESHELVE_SERVING_MONITORING_CONFIG_FILE": str(path)}


def _write_first_list(models: Path) -> None:
    """An empty model list where there is none: a server without its file ends at once. From then on it is the agent's."""
    path = models / CONFIG_FILE
    if not path.exists():
        partial = models / f".{CONFIG_FILE}.first"
        partial.write_text(model_list({}), encoding="utf-8")
        partial.rename(path)
