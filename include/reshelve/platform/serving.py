"""The local model server and the agent beside it: two processes, as on a serving host."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from reshelve.errors import ConfigurationError
from reshelve.modelserver.local_server import CONFIG_FILE, MONITORING, MONITORING_FILE, model_list

if TYPE_CHECKING:
    from reshelve.platform.configuration import Machine

PROCESSES = ("model-server", "agent")

_SOCKET = "grpc.sock"
_LONGEST_SOCKET = 107  # bytes of a Unix socket's path


def process_command(name: str, machine: Machine) -> list[str]:
    """The command of the model server or of its agent."""
    machine.models.mkdir(parents=True, exist_ok=True)
    reshelve = str(Path(sys.executable).with_name("reshelve"))
    grpc = f"127.0.0.1:{machine.ports.grpc_port}"
    if name == "model-server":
        _write_first_list(machine.models)
        rest = f"127.0.0.1:{machine.ports.rest_port}"
        return [reshelve, "model-server", "--models", str(machine.models), "--grpc", grpc, "--rest", rest]
    admin = f"unix:{admin_socket(machine)}"
    return [
        reshelve, "agent", "--models", str(machine.models), "--server", grpc, "--admin", admin, "--name", "local",
    ]  # fmt: skip


def process_environment(name: str, machine: Machine) -> dict[str, str]:
    """What the process is told beside the platform's own variables.

    A model server shows its Prometheus page, and takes model lists from this user's processes alone.
    """
    if name != "model-server":
        return {}
    path = machine.home / MONITORING_FILE
    path.write_text(MONITORING, encoding="utf-8")
    return {
        "RESHELVE_SERVING_MONITORING_CONFIG_FILE": str(path),
        "RESHELVE_SERVING_GRPC_SOCKET_PATH": str(admin_socket(machine)),
        "RESHELVE_SERVING_ADMIN_ON_SOCKET_ONLY": "true",
    }


def admin_socket(machine: Machine) -> Path:
    """Where the model server takes model lists: in a folder that no other user may enter. Raises ConfigurationError where it is not ours.

    In the home, unless its name is too long for a socket.
    """
    folder = machine.home / "serving" / "admin"
    if len(os.fsencode(folder / _SOCKET)) > _LONGEST_SOCKET:
        name = hashlib.sha256(os.fsencode(machine.home)).hexdigest()[:16]
        folder = Path(tempfile.gettempdir()) / f"reshelve-{os.getuid()}-{name}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    about = folder.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid():
        raise ConfigurationError(f"{folder} is not ours", "expected a directory of this user: remove it")
    folder.chmod(0o700)
    return folder / _SOCKET


def _write_first_list(models: Path) -> None:
    """An empty model list where there is none: a server without its file ends at once. From then on it is the agent's."""
    path = models / CONFIG_FILE
    if not path.exists():
        partial = models / f".{CONFIG_FILE}.first"
        partial.write_text(model_list({}), encoding="utf-8")
        partial.rename(path)
