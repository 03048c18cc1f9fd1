"""Whoever hangs, on either side of the gateway, holds a connection for seconds and not for ever: the real gateway, real nginx."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from tests.crowd import head
from tests.shops import SLOW, TOKEN, Shop, Told

pytestmark = pytest.mark.slow
PATIENCE = 25.0  # seconds: ten of the gateway's and a busy machine; nginx's own are sixty


def until_it_is_closed(shop: Shop, begun: bytes) -> float:
    """Seconds until the gateway ends a connection on which no more comes. Raises TimeoutError where it does not."""
    trusted = ssl.create_default_context(cafile=str(shop.home / "gateway" / "certificate.pem"))
    with (
        socket.create_connection(("localhost", shop.port), timeout=PATIENCE) as plain,
        trusted.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        connection.sendall(begun)
        since = time.monotonic()
        with suppress(ConnectionResetError, ssl.SSLEOFError):
            while connection.recv(4096):
                continue
        return time.monotonic() - since


def test_who_sends_half_a_request_is_let_go(shop: Shop) -> None:
    halves = [b"POST /v1/models/recommend:predict HTTP/1.1\r\nHost: loc", head(TOKEN, 1000) + b"{"]
    with ThreadPoolExecutor(2) as pool:
        seconds = list(pool.map(lambda half: until_it_is_closed(shop, half), halves))
    assert all(5 < each < PATIENCE for each in seconds), seconds


def processes_of(pid_file: Path) -> list[int]:
    """A process, and those that it started."""
    parent = pid_file.read_text().strip()
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(parent), *map(int, children)]


@contextmanager
def stopped(shop: Shop, *names: str) -> Iterator[None]:
    """Processes that are there and do nothing."""
    found = [pid for name in names for pid in processes_of(shop.home / "gateway" / f"{name}.pid")]
    for pid in found:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in found:
            os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize(("names", "status"), [(("admission1", "admission2"), 503), (("inner",), 504)], ids=["admission", "inner nginx"])  # fmt: skip
def test_a_part_of_the_gateway_that_hangs_is_not_waited_for(
    shop: Shop, names: tuple[str, ...], status: int
) -> None:
    with stopped(shop, *names):
        since = time.monotonic()
        assert shop.ask()[0] == status
        assert time.monotonic() - since < 15


def test_a_request_is_given_up_in_its_time(shop: Shop, servers: list[Told]) -> None:
    """A second, as the gateway was told; the edge alone would wait for three, and the scripted server answers in two."""
    assert shop.ask(body=SLOW.replace("sleep 5", "sleep 2"))[0] == 504
