"""What a request may cost a model server in time, whoever waits for it: REST by the server's own limit, gRPC by the caller's."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reshelve.modelserver import grpc_api
from reshelve.modelserver.local_server import running_model_server

from .calls import Caller, wait_for

THREADS = 3
ENDLESS = {"signature_name": "slow", "inputs": {"x": [1e8]}}


@pytest.mark.slow
@pytest.mark.usefixtures("own_process")
def test_the_work_of_a_rest_request_ends_with_the_servers_limit(
    saved_model: Callable[..., Path], tmp_path: Path
) -> None:
    """And its thread is free again: as many of them as there are threads stop nobody for longer."""
    options = {"rest_api_timeout_in_ms": 300, "rest_api_num_threads": THREADS}
    with running_model_server({"m": saved_model(tmp_path / "1")}, options=options) as at:
        caller, since = Caller(at), time.monotonic()
        for _ in range(2 * THREADS):
            status, answer = caller.rest("/v1/models/m:predict", ENDLESS)
            assert status == 504, answer
        assert time.monotonic() - since < 30, "minutes, were it not stopped"
        wait_for(lambda: caller.rest("/v1/models/m:predict", {"inputs": [1]})[0] == 200, "an answer", 20)


@pytest.mark.parametrize(
    ("left", "milliseconds"),
    [(None, 0), (1.5, 1500), (0.0001, 1), (0.0, 1), (-3.0, 1), (1e12, 2**31 - 1)],
    ids=["none", "some", "hardly any", "over", "long over", "for ever"],
)
def test_a_call_whose_time_is_over_is_none_without_a_limit(left: float | None, milliseconds: int) -> None:
    """0 means no limit to TensorFlow: who sends a call with no time left must not get all of it."""
    context: Any = SimpleNamespace(time_remaining=lambda: left)
    assert grpc_api._milliseconds_left(context) == milliseconds
