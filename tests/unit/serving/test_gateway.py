"""The gateway: what nginx is told, what is counted, and the real nginx in front of a real model server."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import shutil
import signal
import ssl
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reshelve.errors import ConfigurationError
from reshelve.processes import free_port, port_is_open, start, stop_group, wait_until
from reshelve.rankers import Ranker
from reshelve.serving import gateway as gateway_module
from reshelve.serving.certificate import self_signed
from reshelve.serving.gateway_config import SESSION_HEADER, VERSION_HEADER, attempts
from reshelve.serving.release import release, rollback
from reshelve.serving.traffic import read_traffic
from reshelve.settings import settings
from reshelve.store.objects import ObjectStore

FIRST, SECOND = date(2011, 8, 30), date(2011, 8, 31)
TOKEN = "a-token-of-the-shop"
PATH = "/v1/models/recommend:predict"
BODY = json.dumps({"inputs": {"history": ["title 1"]}})


@pytest.mark.parametrize(
    ("status", "seconds", "found"),
    [
        pytest.param("200", "0.012", [("200", 0.012)], id="one server"),
        pytest.param("502, 200", "0.001, 0.020", [("200", 0.021)], id="the second server of a group"),
        pytest.param("500 : 200", "0.4 : 0.1", [("500", 0.4), ("200", 0.1)], id="canary, then stable"),
        pytest.param("504, 502 : 200", "0.2, - : 0.1", [("502", 0.2), ("200", 0.1)], id="both"),
        pytest.param("-", "-", [], id="the caller went away"),
    ],
)
def test_attempts(status: str, seconds: str, found: list[tuple[str, float]]) -> None:
    assert list(attempts(status, seconds)) == [(code, pytest.approx(time)) for code, time in found]


@given(st.lists(st.lists(st.integers(200, 599), min_size=1, max_size=3), min_size=1, max_size=2))
def test_every_group_of_servers_is_one_attempt(groups: list[list[int]]) -> None:
    status = " : ".join(", ".join(map(str, group)) for group in groups)
    seconds = " : ".join(", ".join("0.010" for _ in group) for group in groups)
    found = list(attempts(status, seconds))
    assert [code for code, _ in found] == [str(group[-1]) for group in groups]
    assert sum(time for _, time in found) == pytest.approx(0.01 * sum(map(len, groups)))


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        pytest.param("", "no token", id="none"),
        pytest.param("short", "token 1 cannot be one", id="too short"),
        pytest.param(f'{TOKEN},"; return 200; #{TOKEN}', "token 2 cannot be one", id="nginx's own language"),
    ],
)
def test_tokens_that_are_none(monkeypatch: pytest.MonkeyPatch, value: str, problem: str) -> None:
    monkeypatch.setenv("RESHELVE_GATEWAY_TOKENS", value)
    settings.cache_clear()
    with pytest.raises(ConfigurationError, match=problem) as refused:
        gateway_module.tokens()
    assert value == "" or value not in str(refused.value)


def test_a_certificate_is_made_once_and_its_key_is_private(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    before = certificate.read_bytes()
    assert self_signed(tmp_path) == (certificate, key) and certificate.read_bytes() == before
    assert key.stat().st_mode & 0o777 == 0o600
    ssl.create_default_context(cafile=str(certificate))


@dataclass
class Shop:
    """A caller in another language: plain HTTPS."""

    port: int
    home: Path
    dead_server: str
    pid: int = 0

    def ask(
        self,
        session: str = "",
        *,
        method: str = "POST",
        path: str = PATH,
        token: str = TOKEN,
        body: str = BODY,
    ) -> tuple[int, dict[str, Any], int]:
        """Status, JSON, and the version that answered (0: none)."""
        trusted = ssl.create_default_context(cafile=str(self.home / "gateway" / "certificate.pem"))
        connection = http.client.HTTPSConnection("localhost", self.port, timeout=20, context=trusted)
        headers = {"Authorization": f"Bearer {token}", SESSION_HEADER: session}
        try:
            connection.request(method, path, body if method == "POST" else None, headers)
            answer = connection.getresponse()
            return (
                answer.status,
                json.loads(answer.read() or b"{}"),
                int(answer.headers.get(VERSION_HEADER, 0)),
            )
        finally:
            connection.close()

    def start(self, server: str) -> None:
        command = [sys.executable, "-m", "reshelve.cli", "gateway", "--listen", f"127.0.0.1:{self.port}"]
        options = ["--server", self.dead_server, "--server", server, "--timeout", "10", "--every", "0.2"]
        self.pid = start(command + options, self.home / "gateway.log").pid
        wait_until(lambda: port_is_open(self.port), 60, f"the gateway ({self.home}/gateway.log)")

    @property
    def nginx(self) -> int:
        return int((self.home / "gateway" / "nginx.pid").read_text())

    def nginx_lives(self) -> bool:
        return (self.home / "gateway" / "nginx.pid").is_file() and Path(f"/proc/{self.nginx}").exists()


@pytest.fixture
def shop(store: ObjectStore, host: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed (Debian: apt-get install nginx-light)")
    home = Path(tempfile.mkdtemp(prefix="gateway-"))  # short: the path of a socket has a limit
    keys = settings().home / "keys"
    monkeypatch.setenv("RESHELVE_GATEWAY_TOKENS", TOKEN)
    monkeypatch.setenv("RESHELVE_HOME", str(home))
    monkeypatch.setenv("RESHELVE_SIGNING_KEY", str(keys / "signing.pem"))
    monkeypatch.setenv("RESHELVE_TRUSTED_KEYS", str(keys / "trusted"))
    settings.cache_clear()
    made = Shop(free_port(), home, f"127.0.0.1:{free_port()}")
    made.start(host.rest)
    try:
        yield made
    finally:
        stop_group(made.pid)
        if made.nginx_lives():
            os.kill(made.nginx, signal.SIGTERM)
        shutil.rmtree(home, ignore_errors=True)


@pytest.mark.slow
def test_callers_follow_a_release_through_the_gateway(
    store: ObjectStore, publish: Any, host: Any, ranker: Ranker, shop: Shop
) -> None:
    """TLS and token, nothing but Predict, a canary judged on what the gateway counted, a rollback: no request fails."""
    one, two = publish(FIRST), publish(SECOND, "other")
    host.start_agent()
    host.start_server()
    release(ranker, one, by="test")
    wait_until(lambda: shop.ask()[0] == 200, 20, "the gateway to know the version")
    status, answer, version = shop.ask()
    assert (status, version) == (200, one) and answer["outputs"]["item"][0][0] == "i0"
    assert shop.ask(token="a-token-of-somebody-else")[0] == 401
    assert shop.ask(method="GET")[0] == 405
    assert shop.ask(body="{")[0] == 400
    for path in ("/v1/models/recommend", f"/v1/models/recommend/versions/{one}:predict", "/v1/models/recommend:classify",
                 "/monitoring/prometheus/metrics", "/@stable_recommend", "/v1/models/other:predict"):  # fmt: skip
        assert shop.ask(path=path)[0] == 404, path
    assert shop.ask(method="GET", path="/health")[0] == 200

    failed: list[Any] = []
    places: dict[str, set[int]] = {}
    stop = threading.Event()

    def customer(first: int) -> None:
        for number in itertools.count(first, 4):
            if stop.wait(0.005):
                return
            session = f"s{number % 200}"
            status, _, version = shop.ask(session)
            places.setdefault(session, set()).add(version)
            if status != 200:
                failed.append((status, version))

    threads = [threading.Thread(target=customer, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    careful = ranker.with_values(
        {
            "release.max_latency_ratio": 20,
            "release.canary": {"shares": [0.25, 0.5], "min_requests": 40, "step_minutes": 2},
        }
    )
    try:
        released = release(careful, two, by="test")
        assert released["state"] == "promoted", released
        wait_until(lambda: shop.ask("s1")[2] == two, 20, "the new version")
        rollback(ranker, to=None, by="test")
        wait_until(lambda: {shop.ask(f"s{n}")[2] for n in range(20)} == {one}, 20, "the old version")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failed, failed[:5]
    evidence = [step for step in released["steps"] if step["step"] == "canary"]
    assert len(evidence) == 2
    wait_until(lambda: set(read_traffic(store, "recommend", 0)) == {one, two}, 10, "the counts")
    assert {error for counts in read_traffic(store, "recommend", 0).values() for error in counts.errors} <= {
        "HTTP 400"
    }


@pytest.mark.slow
def test_customers_are_answered_while_the_gateway_is_killed(
    store: ObjectStore, publish: Any, host: Any, ranker: Ranker, shop: Shop
) -> None:
    one = publish(FIRST)
    host.start_agent()
    host.start_server()
    release(ranker, one, by="test")
    wait_until(lambda: shop.ask()[0] == 200, 20, "the gateway to know the version")
    wait_until(lambda: _counted(store, one) > 0, 20, "the counts")
    before = shop.nginx
    os.kill(shop.pid, signal.SIGKILL)
    os.waitpid(shop.pid, 0)
    assert {shop.ask(f"s{n}")[0] for n in range(20)} == {200}
    told = _counted(store, one)
    shop.start(host.rest)
    wait_until(lambda: shop.ask()[0] == 200 and _counted(store, one) > told, 30, "the next gateway to count")
    assert shop.nginx == before
    os.kill(shop.pid, signal.SIGTERM)
    os.waitpid(shop.pid, 0)
    wait_until(lambda: not shop.nginx_lives(), 10, "nginx to stop with it")


def _counted(store: ObjectStore, version: int) -> int:
    found = read_traffic(store, "recommend", 0)
    return found[version].requests if version in found else 0
