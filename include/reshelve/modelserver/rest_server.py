"""The REST API's HTTP server: Uvicorn in a thread of its own, with the manners of TensorFlow Serving's libevent."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any

import uvicorn

from reshelve.errors import TryAgainError
from reshelve.modelserver.model_api import ModelApi
from reshelve.modelserver.rest_api import RestApi
from reshelve.modelserver.server_options import ServerOptions

_METHODS = ("GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH")
# RFC 3986: what a path and a query may be made of, to the letter.
_PATH = re.compile(rb"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?#]|%[0-9A-Fa-f]{2})*")
_PAGE = "<HTML><HEAD>\n<TITLE>{0} {1}</TITLE>\n</HEAD><BODY>\n<H1>{1}</H1>\n</BODY></HTML>\n"
_HTML = b"text/html; charset=ISO-8859-1"
_IDLE_SECONDS = 50  # then a connection that is kept is closed, as libevent does
_MOST_BYTES = 100 * 2**20  # of an unpacked body


class RestServer:
    """Answers on an address of its own. `metrics_path`: where the Prometheus page is; None: nowhere."""

    def __init__(
        self, api: ModelApi, address: str, options: ServerOptions, metrics_path: str | None = None
    ) -> None:
        self.api = api
        self._rest = RestApi(api, options)
        self._metrics_path = metrics_path
        # One thread of them listens, as in TensorFlow Serving.
        self._pool = ThreadPoolExecutor(options.rest_api_num_threads - 1, thread_name_prefix="rest")
        self._socket = _listen(address)
        config = uvicorn.Config(
            self._handle,
            log_level="warning",
            access_log=False,
            lifespan="off",
            interface="asgi3",
            timeout_keep_alive=_IDLE_SECONDS,
            timeout_graceful_shutdown=2,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="rest", daemon=True
        )

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Finish what runs, for two seconds at most, and stop."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._socket.close()

    async def _handle(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        method, raw, query = scope["method"], scope["raw_path"], scope["query_string"]
        path = raw.decode("latin-1")
        uri = f"{path}?{query.decode('latin-1')}" if query else path
        if method not in _METHODS:
            await _send(send, *_page(HTTPStatus.NOT_IMPLEMENTED))
        elif not (_PATH.fullmatch(raw) and _PATH.fullmatch(query)):
            await _send(send, *_page(HTTPStatus.BAD_REQUEST))
        elif path == self._metrics_path:
            if uri == path:
                await _send(send, 200, self._rest.metrics(), b"text/plain")
            else:
                await _send(send, 400, f"Unexpected path: {uri}. Should be {path}".encode(), b"text/plain")
        elif path[:4].lower() != "/v1/":
            await _send(send, *_page(HTTPStatus.NOT_FOUND))
        elif method == "OPTIONS":
            await _send(send, self._rest.preflight(_header(scope["headers"], b"origin")), b"", _HTML)
        else:
            body = await _body(scope, receive)
            answer = asyncio.get_running_loop().run_in_executor(
                self._pool, self._rest.answer, method, uri, body
            )
            await _send(send, *await answer, b"application/json")


async def _body(scope: Any, receive: Any) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            break
    body = parts[0] if len(parts) == 1 else b"".join(parts)
    return _unpacked(body) if "gzip" in _header(scope["headers"], b"content-encoding") else body


def _unpacked(body: bytes) -> bytes:
    """The body that was packed by gzip; empty where it was not, or is too large."""
    unpack = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        found = unpack.decompress(body, _MOST_BYTES)
    except zlib.error:
        return b""
    return found if unpack.eof else b""


def _header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in headers if key == name), "")


def _page(status: HTTPStatus) -> tuple[int, bytes, bytes]:
    return status, _PAGE.format(status.value, status.phrase).encode(), b"text/html"


async def _send(send: Any, status: int, content: bytes, kind: bytes) -> None:
    headers = [(b"content-type", kind), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def _listen(address: str) -> socket.socket:
    """A bound socket. Raises TryAgainError where the address is taken."""
    host, _, port = address.rpartition(":")
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host.strip("[]"), int(port)))
    except OSError as error:
        listener.close()
        raise TryAgainError(f"the model server cannot listen on {address} (REST)", str(error)) from error
    return listener
