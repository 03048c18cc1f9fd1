"""Which service listens on which port, and whether it can: asked before anything is started."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from reshelve.errors import ConfigurationError
from reshelve.platform.configuration import Machine
from reshelve.platform.services import PlatformState

PORTS = {
    "postgres": ("postgres_port",),
    "object-store": ("s3_port",),
    "api-server": ("airflow_port",),
    "model-server": ("grpc_port", "rest_port"),
}


def check_ports(here: Machine, missing: Sequence[str]) -> None:
    """Raises ConfigurationError naming every port that another program holds, and the setting that changes it."""
    taken = [said for name in missing for said in taken_ports(here, name)]
    if taken:
        word = "a port is" if len(taken) == 1 else "ports are"
        raise ConfigurationError(f"{word} in use by another program on this machine", "\n".join(taken))


def taken_ports(here: Machine, name: str) -> list[str]:
    """A sentence for each port of a service that another program holds."""
    ports = {field: getattr(here.ports, field) for field in PORTS.get(name, ())}
    return [
        f"port {port} ({name}): set RESHELVE_{field.upper()} to a free one"
        for field, port in ports.items()
        if not _can_listen(port)
    ]


def check_same_ports(here: Machine, missing: Sequence[str]) -> None:
    """Raises ConfigurationError where a port was changed while its service runs."""
    for name, service in PlatformState.read(here.home).services.items():
        if name not in missing and service.address != address_of(here, name):
            raise ConfigurationError(
                f"{name} runs on {service.address} and would have to move to {address_of(here, name)}",
                "stop the platform first: make stop",
            )


def address_of(here: Machine, name: str) -> str:
    """Where a service listens; empty where it does not."""
    return ", ".join(f"127.0.0.1:{getattr(here.ports, port)}" for port in PORTS.get(name, ()))


def _can_listen(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do: TIME_WAIT is free
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
