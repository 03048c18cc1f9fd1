"""A model server that takes model lists on its socket alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from grpc import StatusCode
from pydantic import ValidationError

from reshelve.agent.admin import ServerAdmin, ServerRefusedError
from reshelve.modelserver.grpc_api import start_grpc
from reshelve.modelserver.model_api import ModelApi
from reshelve.modelserver.servable_manager import ServableManager
from reshelve.modelserver.server_core import ServerCore
from reshelve.modelserver.server_metrics import ServerMetrics
from reshelve.modelserver.server_options import ServerOptions
from reshelve.modelserver.serving_error import ServingError
from reshelve.processes import free_port
from reshelve.protocol.model_config import ModelEntry


def loads_nothing(path: Path) -> Any:
    raise ServingError(StatusCode.DATA_LOSS, f"{path} is no model")


@contextmanager
def listening(**flags: Any) -> Iterator[str]:
    """A server without a model; its address."""
    options = ServerOptions(**flags)
    core = ServerCore(ServableManager(loads_nothing, options), options)
    core.start()
    address = f"127.0.0.1:{free_port()}"
    server = start_grpc(ModelApi(core, ServerMetrics()), address, options)
    try:
        yield address
    finally:
        server.stop(None).wait()
        core.close()


def test_the_port_takes_no_list_and_answers_all_else(tmp_path: Path) -> None:
    socket = tmp_path / "a.sock"
    with (
        listening(grpc_socket_path=str(socket), admin_on_socket_only=True) as address,
        closing(ServerAdmin(address)) as stranger,
        closing(ServerAdmin(f"unix:{socket}")) as agent,
    ):
        for entries in ([], [ModelEntry("recommend", tmp_path, frozenset({1}))]):
            with pytest.raises(ServerRefusedError, match="on the socket only"):
                stranger.reload(entries)
        agent.reload([])
        assert stranger.observe("recommend") == agent.observe("recommend")


@pytest.mark.parametrize("socket", [False, True])
def test_without_the_option_it_is_as_tensorflow_serving(tmp_path: Path, socket: bool) -> None:
    flags = {"grpc_socket_path": str(tmp_path / "a.sock")} if socket else {}
    with listening(**flags) as address, closing(ServerAdmin(address)) as anybody:
        anybody.reload([])


def test_a_server_that_nobody_could_tell_anything_does_not_start() -> None:
    with pytest.raises(ValidationError, match="nobody could give it a model list"):
        ServerOptions(admin_on_socket_only=True)  # type: ignore[call-arg]
