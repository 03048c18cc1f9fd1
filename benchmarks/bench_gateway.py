"""What the gateway's admission costs a request: p50 and p99 with and without it, in one interleaved run.

    python benchmarks/bench_gateway.py [--rounds 40] [--requests 50] [--rows 1]

Two edges before one inner nginx and one server that answers at once: the one as it is, and one that sends what it gets on
without asking. Every round asks both, in an order that turns, over connections that are kept. Prints a line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import socket
import ssl
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from reshelve.deployments.deployment_log import Pointer
from reshelve.files import write_private
from reshelve.gateway import edge, inner
from reshelve.gateway.admission_process import AdmissionProcess
from reshelve.gateway.certificate import hosts_of, self_signed
from reshelve.gateway.configuration import ADMITTED, Gateway
from reshelve.gateway.nginx import Nginx
from reshelve.gateway.tokens import Limits, Token, Tokens, new_token
from reshelve.processes import free_port, port_is_open, wait_until

ANSWER = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{"outputs": {}}'
PATH = "/v1/models/recommend:predict"
LIMITS = Limits(requests_per_second=100_000, concurrent=4096)  # what is measured is not the limits' own doing


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A model server that takes no time."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(head.partition(b"content-length:")[2].split(b"\r\n")[0]))
            writer.write(ANSWER)
    writer.close()


@contextlib.contextmanager
def served() -> Iterator[str]:
    """The server's address."""
    port, loop = free_port(), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(asyncio.start_server(_answer, "127.0.0.1", port), loop).result(10)
    yield f"127.0.0.1:{port}"
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


@contextlib.contextmanager
def edges(server: str, token: Token) -> Iterator[dict[str, http.client.HTTPSConnection]]:
    """A connection to an edge as it is, and to one that does not ask."""
    with tempfile.TemporaryDirectory(prefix="gateway-") as home, contextlib.ExitStack() as running:
        directory = Path(home)
        (directory / "empty").mkdir()
        certificate, key = self_signed(directory)
        tokens = directory / "tokens.json"
        write_private(tokens, Tokens(tokens=(token,)).model_dump_json())
        gateway = Gateway(
            f"127.0.0.1:{free_port()}",
            (server,),
            certificate,
            key,
            hosts_of(certificate),
            0,
            tokens,
            2.0,
            directory,
        )
        counts = running.enter_context(contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)))
        counts.bind(str(gateway.counts))
        threading.Thread(target=_drain, args=(counts,), daemon=True).start()
        for admission in [AdmissionProcess(path, tokens) for path in gateway.admissions]:
            admission.follow()
            running.callback(admission.stop)
        behind = Nginx(
            gateway.inner_configuration, gateway.inner_pid, gateway.empty, (gateway.first, gateway.again)
        )
        behind.follow(inner.render(gateway, {"recommend": Pointer(ranker="recommend", stable=2)}))
        running.callback(behind.stop)
        found = {}
        for name in ("with", "without"):
            one = replace(gateway, listen=f"127.0.0.1:{free_port()}")
            text = edge.render(one, [token])
            if name == "without":
                text = text.replace(
                    "proxy_pass http://admission;", f"error_page 418 = {ADMITTED}; return 418;"
                )
                text = text.replace("nginx.pid", "without.pid")
            pid = directory / ("nginx.pid" if name == "with" else "without.pid")
            front = Nginx(directory / f"{name}.conf", pid, gateway.empty)
            front.follow(text)
            running.callback(front.stop)
            port = int(one.listen.rpartition(":")[2])
            wait_until(lambda port=port: port_is_open(port), 10, "the edge")  # type: ignore[misc]
            context = ssl.create_default_context(cafile=str(certificate))
            found[name] = http.client.HTTPSConnection("localhost", port, timeout=10, context=context)
        yield found


def _drain(counts: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            counts.recv(65536)


def asked(connection: http.client.HTTPSConnection, text: str, body: str) -> float:
    """Milliseconds of one request."""
    begun = time.perf_counter()
    connection.request("POST", PATH, body, {"Authorization": f"Bearer {text}"})
    answer = connection.getresponse()
    answer.read()
    if answer.status != 200:
        raise RuntimeError(f"the gateway answered {answer.status}")
    return (time.perf_counter() - begun) * 1000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--requests", type=int, default=50, help="of each edge in a round")
    parser.add_argument("--rows", type=int, default=1, help="texts of 40 letters in one request, at most 128")
    arguments = parser.parse_args()
    text, token = new_token("bench", None, 1, LIMITS)
    body = json.dumps({"inputs": {"history": ["a red mug ; a blue saucer ; a tea towel "] * arguments.rows}})
    taken: dict[str, list[float]] = {"with": [], "without": []}
    with served() as server, edges(server, token) as connections:
        for place in range(-2, arguments.rounds):
            for name in sorted(connections, reverse=place % 2 == 0):
                found = [asked(connections[name], text, body) for _ in range(arguments.requests)]
                taken[name] += found if place >= 0 else []
    line: dict[str, float] = {"rows": arguments.rows, "requests": len(taken["with"])}
    for name, found in taken.items():
        line |= {
            f"{name}_p50_ms": statistics.median(found),
            f"{name}_p99_ms": statistics.quantiles(found, n=100)[98],
        }
    line["added_p50_ms"] = line["with_p50_ms"] - line["without_p50_ms"]
    line["added_p99_ms"] = line["with_p99_ms"] - line["without_p99_ms"]
    print(json.dumps({name: round(value, 3) for name, value in line.items()}))


if __name__ == "__main__":
    main()
