"""Horovod's servers take values from anybody who reaches them: those of a training are reached from this host alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psutil
import pytest
from horovod.runner.http import http_server

from reshelve.training import horovodrun

pytestmark = pytest.mark.slow  # loads Horovod


def addresses_of(port: int) -> set[str]:
    found = psutil.Process().net_connections("inet")
    return {one.laddr.ip for one in found if one.status == "LISTEN" and one.laddr.port == port}


@pytest.mark.parametrize("server", [http_server.RendezvousServer, http_server.KVStoreServer])
def test_a_launchers_server_listens_on_loopback_alone(
    server: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "find_port", http_server.find_port)  # put back after the test
    monkeypatch.setattr(horovodrun.launch, "run_commandline", lambda: None)
    monkeypatch.setattr(horovodrun, "die_with_parent", lambda: None)
    monkeypatch.setenv("RESHELVE_LAUNCHER", "")
    horovodrun.main()
    started = server(verbose=0)
    port = started.start_server() if hasattr(started, "start_server") else started.start()
    try:
        assert addresses_of(port) == {"127.0.0.1"}
    finally:
        (started.stop if hasattr(started, "stop") else started.shutdown_server)()
