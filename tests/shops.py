"""Callers in other languages, the gateway that they ask, and a model server that answers as it is told to."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import ssl
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.deployed import put_state

from reshelve.deployments.deployment_log import Pointer
from reshelve.gateway import token_verbs
from reshelve.gateway.configuration import SESSION_HEADER, VERSION_HEADER
from reshelve.processes import free_port, port_is_open, start, stop_group, wait_until
from reshelve.settings import settings
from reshelve.store.objects import ObjectStore

TOKEN = "shop.a-token-that-is-long-and-random-enough"
PATH = "/v1/models/recommend:predict"
STABLE = 20110829001
BODY = json.dumps({"inputs": {"history": ["title 1"]}})


@dataclass
class Shop:
    """A caller in another language: plain HTTPS."""

    port: int
    home: Path
    pid: int = 0

    def connect(self) -> http.client.HTTPSConnection:
        """A connection that stays open."""
        trusted = ssl.create_default_context(cafile=str(self.home / "gateway" / "certificate.pem"))
        return http.client.HTTPSConnection("localhost", self.port, timeout=20, context=trusted)

    def ask(
        self,
        session: str = "",
        *,
        method: str = "POST",
        path: str = PATH,
        token: str = TOKEN,
        body: str = BODY,
        headers: Mapping[str, str] | None = None,
        connection: http.client.HTTPSConnection | None = None,
    ) -> tuple[int, Any, int]:
        """Status, JSON, and the version that answered (0: none said)."""
        asked = connection or self.connect()
        sent = {"Authorization": f"Bearer {token}", SESSION_HEADER: session, **(headers or {})}
        try:
            asked.request(method, path, body if method == "POST" else None, sent)
            answer = asked.getresponse()
            content = answer.read()
            try:
                said = json.loads(content or b"{}")
            except ValueError:
                said = content
            return answer.status, said, int(answer.headers.get(VERSION_HEADER, 0))
        finally:
            if connection is None:
                asked.close()

    def start(self, *servers: str, timeout: float = 10, more: Sequence[str] = ()) -> None:
        """The gateway's process, until it listens; `more`: further options of the verb."""
        command = [sys.executable, "-m", "reshelve.cli", "gateway", "--listen", f"127.0.0.1:{self.port}"]
        options = [word for server in servers for word in ("--server", server)]
        options += ["--timeout", str(timeout), "--every", "0.2", *more]
        self.process = start(command + options, self.home / "gateway.log")  # held: tests wait for its end
        self.pid = self.process.pid
        # `nginx -t` listens for a moment too, and leaves an empty file: a port that is open is not enough.
        edge = self.home / "gateway" / "nginx.pid"
        wait_until(
            lambda: edge.is_file() and edge.read_text().strip() != "" and port_is_open(self.port),
            60,
            f"the gateway ({self.home}/gateway.log)",
        )

    @property
    def nginx(self) -> int:
        """The edge's process id."""
        return int((self.home / "gateway" / "nginx.pid").read_text())

    def nginx_lives(self) -> bool:
        """Whether one of the two does, or admission."""
        return any(Path(f"/proc/{pid}").exists() for pid in self._nginxes())

    def _nginxes(self) -> list[int]:
        names = ("nginx.pid", "inner.pid", "admission1.pid", "admission2.pid")
        files = [self.home / "gateway" / name for name in names]
        return [int(file.read_text()) for file in files if file.is_file()]

    def close(self) -> None:
        """Stop what was started."""
        if self.pid:
            stop_group(self.pid)
        for pid in self._nginxes():
            if Path(f"/proc/{pid}").exists():
                os.kill(pid, signal.SIGTERM)
        shutil.rmtree(self.home, ignore_errors=True)


def open_shop(monkeypatch: pytest.MonkeyPatch) -> Shop:
    """A shop whose gateway is not started yet; this process's settings are its from now on."""
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed (Debian: apt-get install nginx-light)")
    home = Path(tempfile.mkdtemp(prefix="gateway-"))  # short: the path of a socket has a limit
    keys = settings().home / "keys"
    monkeypatch.setenv("RESHELVE_HOME", str(home))
    for variable, name in (
        ("SIGNING", "signing"),
        ("GATE", "gate"),
        ("RELEASE", "release"),
        ("PERSON", "person"),
    ):
        monkeypatch.setenv(f"RESHELVE_{variable}_KEY", str(keys / f"{name}.pem"))
    monkeypatch.setenv("RESHELVE_TRUSTED_KEYS", str(keys / "trusted"))
    settings.cache_clear()
    token_verbs.make("shop", rankers=[], days=1, given=TOKEN)
    return Shop(free_port(), home)


@dataclass
class Told:
    """What a scripted model server answers: the statuses of a version in turn, the last one from then on; else 404.

    Every answer takes `seconds`, and one to a body with "sleep 1.5" so many; `headers`: those of the last request.
    """

    address: str
    seconds: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)
    statuses: dict[str, list[int]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def status(self, path: str) -> int:
        with self.lock:
            self.asked.append(path)
            left = self.statuses.get(path, [404])
            return left.pop(0) if len(left) > 1 else left[0]

    def says(self, version: int | str, statuses: Sequence[int]) -> None:
        """From now on, for a version's number or `stable`, which is the label."""
        what = "labels" if version == "stable" else "versions"
        with self.lock:
            self.statuses[f"/v1/models/recommend/{what}/{version}"] = list(statuses)


@contextmanager
def scripted_server(port: int = 0) -> Iterator[Told]:
    """A real HTTP server that answers by a script, where TensorFlow Serving could not be made to say what a test needs."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # one write for head and body, or the kernel waits 40 ms between them

        def do_GET(self) -> None:
            with told.lock:
                there = told.statuses.get(self.path, [404])[-1] == 200
            number = self.path.rpartition("/")[2]
            state = {"version": number, "state": "AVAILABLE" if there else "LOADING"}
            self._answer(200, {"model_version_status": [state]})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            told.headers = dict(self.headers)
            status = told.status(self.path.removesuffix(":predict"))
            asleep = re.search(rb"sleep ([0-9.]+)", body)
            ended.wait(float(asleep[1]) if asleep else told.seconds)
            self._answer(status, {"outputs": {}} if status == 200 else {"error": f"told to say {status}"})

        def _answer(self, status: int, document: Any) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            # A server must neither speak for the gateway nor to its counts.
            self.send_header(VERSION_HEADER, "666")
            self.send_header("X-Reshelve-Told", "1 666|200|0.1")
            self.send_header("X-Accel-Redirect", "/health")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    class Server(ThreadingHTTPServer):
        request_queue_size = 128
        daemon_threads = True

    ended = threading.Event()
    server = Server(("127.0.0.1", port), Handler)
    told = Told(f"127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield told
    finally:
        ended.set()
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)


MANY = json.dumps({"inputs": {"history": ["red mug"] * 2000}})
"""A request of more rows than a token may ask."""
SLOW = json.dumps({"inputs": {"history": ["sleep 5"]}})
"""A request that a scripted server takes five seconds for."""


@contextmanager
def two_servers() -> Iterator[list[Told]]:
    """Two scripted model servers that have the stable version."""
    with scripted_server() as one, scripted_server() as two:
        for server in (one, two):
            server.says(STABLE, [200])
        yield [one, two]


@contextmanager
def open_gateway(
    store: ObjectStore, servers: Sequence[Told], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Shop]:
    """A shop whose gateway answers, before those servers; a request may take a second."""
    made = open_shop(monkeypatch)
    put_state(store, Pointer(ranker="recommend", stable=STABLE))
    try:
        made.start(*(server.address for server in servers), timeout=1)
        wait_until(lambda: made.ask()[0] == 200, 30, "the gateway to know the version")
        yield made
    finally:
        made.close()


def make_token(name: str, **values: Any) -> str:
    """The text of one more token."""
    return str(token_verbs.make(name, **{"rankers": [], "days": 1, **values})["token"])
