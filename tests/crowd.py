"""Callers who are a burden, in a process of their own: `python -m tests.crowd PORT CERTIFICATE TOKEN SECONDS`.

A thousand connections from 127.0.0.2: heads and bodies a byte at a time, bodies that are too large or have too many rows,
other signatures, packed bodies, and requests that keep a model server for long. Prints how often each was answered what.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import sys
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

ADDRESS = "127.0.0.2"
PATH = "/v1/models/recommend:predict"
_PAUSE = 1.0
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def head(token: str, length: int, more: str = "") -> bytes:
    """The head of a request whose body has that length."""
    lines = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n{more}Content-Length: {length}\r\n\r\n"
    return lines.encode()


def request(token: str, body: str, more: str = "") -> bytes:
    """A whole request."""
    return head(token, len(body), more) + body.encode()


def bodies(token: str) -> dict[str, bytes]:
    """Requests that are made whole, by what is wrong with them."""
    many = json.dumps({"inputs": {"history": ["red mug"] * 2000}})
    return {
        "rows": request(token, many),
        "signature": request(token, '{"signature_name": "logits", "inputs": {"history": ["a"]}}'),
        "packed": request(token, many, "Content-Encoding: gzip\r\n"),
        "large": head(token, 50_000_000) + b"x" * 200_000,
        "stranger": request("x" * 40, many),
        "heavy": request(token, '{"inputs": {"history": ["sleep 5"]}}'),
    }


class Crowd:
    """Keeps so many connections busy until it is over."""

    def __init__(self, port: int, certificate: str, token: str, seconds: float) -> None:
        self.port, self.token = port, token
        self.context = ssl.create_default_context(cafile=certificate)
        self.end = asyncio.get_running_loop().time() + seconds
        self.seen: dict[str, Counter[str]] = {}

    async def run(self, sizes: dict[str, int]) -> None:
        """`sizes`: connections of each kind."""
        whole = bodies(self.token)
        async with asyncio.TaskGroup() as group:
            for kind, size in sizes.items():
                self.seen[kind] = Counter()
                for _ in range(size):
                    group.create_task(self._again(kind, self._way(kind, whole.get(kind, b""))))
                    await asyncio.sleep(0.002)

    def _way(self, kind: str, whole: bytes) -> Callable[[Streams], Coroutine[Any, Any, str]]:
        if kind == "slow heads":
            return lambda streams: self._dribble(streams, head(self.token, 10))
        if kind == "slow bodies":
            return lambda streams: self._dribble(streams, request(self.token, "x" * 60_000), whole_head=True)
        return lambda streams: self._at_once(streams, whole)

    async def _again(self, kind: str, way: Callable[[Streams], Coroutine[Any, Any, str]]) -> None:
        while (left := self.end - asyncio.get_running_loop().time()) > 0:
            writer = None
            try:
                async with asyncio.timeout(left):
                    streams = await asyncio.open_connection(
                        "127.0.0.1",
                        self.port,
                        ssl=self.context,
                        server_hostname="localhost",
                        local_addr=(ADDRESS, 0),
                    )
                    writer = streams[1]
                    while True:
                        self.seen[kind][await way(streams)] += 1
                        await asyncio.sleep(_PAUSE)
            except TimeoutError:
                self.seen[kind]["held to the end"] += 1
            except (OSError, asyncio.IncompleteReadError, ValueError):
                self.seen[kind]["closed"] += 1
                await asyncio.sleep(_PAUSE)
            finally:
                if writer is not None:
                    writer.close()

    async def _at_once(self, streams: Streams, whole: bytes) -> str:
        reader, writer = streams
        writer.write(whole)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line[15:]) for line in answer.split(b"\r\n") if line.lower().startswith(b"content-length:")
        )
        await reader.readexactly(length)
        return answer.split(b" ", 2)[1].decode()

    async def _dribble(self, streams: Streams, whole: bytes, *, whole_head: bool = False) -> str:
        """A byte a second, until there is an answer."""
        reader, writer = streams
        begun = whole.index(b"\r\n\r\n") + 4 if whole_head else 1
        writer.write(whole[:begun])
        answer = asyncio.ensure_future(reader.readuntil(b"\r\n\r\n"))
        try:
            for place in range(begun, len(whole)):
                if (await asyncio.wait([answer], timeout=_PAUSE))[0]:
                    return (await answer).split(b" ", 2)[1].decode()
                writer.write(whole[place : place + 1])
                await writer.drain()
        finally:
            answer.cancel()
        raise ConnectionError("nobody answered")


async def main() -> None:
    """Run as the arguments say."""
    port, certificate, token, seconds = sys.argv[1:5]
    crowd = Crowd(int(port), certificate, token, float(seconds))
    await crowd.run(
        {"slow heads": 350, "slow bodies": 350, "rows": 50, "signature": 50, "packed": 50, "large": 50, "stranger": 50, "heavy": 50}
    )  # fmt: skip
    sys.stdout.write(json.dumps(crowd.seen) + "\n")


if __name__ == "__main__":
    os.nice(10)
    asyncio.run(main())
