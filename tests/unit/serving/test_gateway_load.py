"""One caller who is a burden, and what the others notice: the real gateway, real nginx, scripted servers."""

from __future__ import annotations

import json
import ssl
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.shops import MANY, SLOW, Shop, Told, make_token

from reshelve.processes import wait_until
from reshelve.settings import PROJECT

pytestmark = pytest.mark.slow


class Others:
    """Callers who ask what they always ask, and take the time of each answer."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.statuses: set[int] = set()

    def ask(self, seconds: float) -> list[float]:
        """Seconds of each answer to four callers, each with a connection of its own."""
        with ThreadPoolExecutor(4) as pool:
            return [one for found in pool.map(self._one, [seconds] * 4) for one in found]

    def _one(self, seconds: float) -> list[float]:
        connection, end, taken = self.shop.connect(), time.monotonic() + seconds, []
        while time.monotonic() < end:
            begun = time.perf_counter()
            try:
                self.statuses.add(self.shop.ask(connection=connection)[0])
            except ssl.SSLEOFError:  # it reads a new token now, and closes the connections that it kept
                connection.close()
                connection = self.shop.connect()
                continue
            taken.append(time.perf_counter() - begun)
        connection.close()
        return taken


def p99(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=100)[98]


def test_heavy_requests_of_one_token_are_no_others_burden(shop: Shop, servers: list[Told]) -> None:
    """What was tried: requests of 2,000 rows, of other signatures, and four a second that take longer than a request may."""
    heavy = make_token("heavy", concurrent=32)
    for one in servers:
        one.seconds = 0.1
    others, quiet, busy = Others(shop), [], []
    stop = threading.Event()
    said: dict[str, set[int]] = {"many": set(), "slow": set()}

    def burden(kind: str, body: str) -> None:
        while not stop.wait(0.25):
            said[kind].add(shop.ask(token=heavy, body=body)[0])

    others.ask(1)  # warm
    for _ in range(3):
        quiet += others.ask(2)
        stop.clear()
        kinds = [("many", MANY), *[("slow", SLOW)] * 5]
        threads = [threading.Thread(target=burden, args=kind) for kind in kinds]
        for thread in threads:
            thread.start()
        busy += others.ask(3)
        stop.set()
        for thread in threads:
            thread.join()
    assert others.statuses == {200}
    assert said == {"many": {413}, "slow": {504}}
    assert p99(busy) <= 1.5 * p99(quiet), (p99(busy), p99(quiet))


@pytest.mark.timeout(180)
def test_a_thousand_connections_of_one_caller(shop: Shop, servers: list[Told]) -> None:
    """Slow heads, slow bodies, large bodies, strangers and heavy requests, from one address: the others are answered as before."""
    heavy = make_token("heavy", concurrent=32)
    for one in servers:
        one.seconds = 0.1
    others = Others(shop)
    others.ask(1)
    quiet = others.ask(6)
    certificate = str(shop.home / "gateway" / "certificate.pem")
    command = [sys.executable, "-m", "tests.crowd", str(shop.port), certificate, heavy, "25"]
    crowd = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: connections(shop.port) > 900, 20, "the crowd")
        busy = others.ask(12)
        most = connections(shop.port)
        said, complaint = crowd.communicate(timeout=60)
    finally:
        crowd.kill()
    quiet += others.ask(6)
    assert crowd.returncode == 0, complaint
    seen = json.loads(said)
    assert most > 600, "the crowd stayed"
    assert others.statuses == {200}
    assert p99(busy) <= 1.5 * p99(quiet), (p99(busy), p99(quiet), seen)
    for kind in ("rows", "packed", "signature", "stranger", "heavy"):
        assert seen[kind].keys() <= {"400", "401", "413", "415", "429", "504", "held to the end", "closed"}, (
            seen
        )
    figures = {"p99 alone": p99(quiet), "p99 beside": p99(busy), "connections": most, "seen": seen}
    sys.stdout.write(json.dumps(figures) + "\n")


def connections(port: int) -> int:
    """How many connections the edge has."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "01" for line in lines)
