"""The process that nginx asks before a request gets in: HTTP/1.1 on a socket of the file system.

    python -m reshelve.gateway.admission_server SOCKET PID_FILE TOKENS_FILE

It sees the request's head and body, never the answer: what it lets in nginx sends on by itself. It has no secret but the
hashes of tokens, and none of the gateway's environment.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import socket
import sys
from http import HTTPStatus
from pathlib import Path
from typing import cast

from reshelve.files import write_private
from reshelve.gateway.admission import Admission, NotAdmittedError
from reshelve.gateway.configuration import ADMITTED, CALLER_HEADER, RANKER_HEADER
from reshelve.gateway.tokens import TokensFile
from reshelve.logs import configure_logs, logger

_BACKLOG = 4096
_END = b"\r\n\r\n"


class AdmissionProtocol(asyncio.Protocol):
    """One connection of nginx, which has each request whole before it asks, and asks one after the other.

    The answer is a refusal, or the location where nginx goes on. Nothing here waits, so no request waits for another
    one's caller.
    """

    def __init__(self, admission: Admission, open_ones: set[AdmissionProtocol]) -> None:
        self._admission, self._open = admission, open_ones
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._open.discard(self)

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(_END)
        if end < 0 or self._transport is None:
            return
        headers = _headers(bytes(self._received[:end]))
        begin = end + len(_END)
        length = int(headers.get("content-length", 0))
        if len(self._received) - begin < length:
            return
        body = bytes(self._received[begin : begin + length])
        del self._received[: begin + length]
        self._transport.write(self._decide(headers, body))

    def close(self) -> None:
        """Let the connection go once what was answered is sent; a request that came half is asked again by nginx."""
        if self._transport is not None:
            self._transport.close()

    def _decide(self, headers: dict[str, str], body: bytes) -> bytes:
        ranker = headers.get(RANKER_HEADER.lower(), "")
        try:
            name = self._admission.admit(headers.get("authorization", ""), ranker, body)
        except NotAdmittedError as refusal:
            return _refused(refusal.status, refusal.text)
        except Exception:  # noqa: BLE001  one odd request must not let another in or end the process
            logger(part="gateway").exception("a request could not be judged")
            return _refused(500, "the request could not be judged")
        said = f"X-Accel-Redirect: {ADMITTED}\r\n{CALLER_HEADER}: {name}\r\nContent-Length: 0"
        return f"HTTP/1.1 200 OK\r\n{said}\r\n\r\n".encode()


def _headers(head: bytes) -> dict[str, str]:
    pairs = (line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:])
    return {name.lower(): value.strip() for name, _, value in pairs}


def _refused(status: int, text: str) -> bytes:
    body = json.dumps({"error": text}).encode()
    head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def listen(path: Path) -> socket.socket:
    """A listening socket that takes the path over from whoever listens there: no caller finds nobody."""
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(fresh))
    fresh.chmod(0o600)
    listener.listen(_BACKLOG)
    fresh.rename(path)
    return listener


async def serve(path: Path, pid_file: Path, tokens: Path) -> None:
    """Answer until SIGTERM."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    admission = Admission(TokensFile(tokens))
    open_ones: set[AdmissionProtocol] = set()
    server = await loop.create_unix_server(
        lambda: AdmissionProtocol(admission, open_ones), sock=listen(path), backlog=_BACKLOG
    )
    write_private(pid_file, f"{os.getpid()}\n")
    await stop.wait()
    server.close()
    for connection in list(open_ones):
        connection.close()
    await asyncio.sleep(0)  # their ends are written


def allow_connections() -> None:
    """As many as the system allows: the usual 1,024 files are fewer than the edge may bring."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    configure_logs()
    allow_connections()
    asyncio.run(serve(*(Path(argument) for argument in sys.argv[1:4])))
