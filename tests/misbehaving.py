"""A proxy in front of a real store that behaves as other vendors' stores do, fault by fault.

What it lets through is the client's own request, signed by it; where a header is to be ignored, or a key left out, the
request is signed anew with the store's credentials.
"""

from __future__ import annotations

import http.client
import re
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

_HOP = {"connection", "expect", "transfer-encoding", "keep-alive"}
_OF_THE_SIGNATURE = {"authorization", "x-amz-date", "x-amz-content-sha256", "host", "content-length"}
_CHECKSUMS = ("x-amz-checksum-", "x-amz-sdk-checksum-algorithm", "x-amz-trailer", "content-md5")


@dataclass(frozen=True)
class Request:
    """What a client asked."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    fresh: bool = False  # changed on the way: to be signed anew

    @property
    def key(self) -> str:
        return unquote(urlsplit(self.target).path).strip("/").partition("/")[2]

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.target).query, keep_blank_values=True)

    def has(self, name: str) -> bool:
        return any(header.lower().startswith(name) for header in self.headers)

    def without(self, *names: str) -> Request:
        kept = {k: v for k, v in self.headers.items() if not k.lower().startswith(names)}
        return replace(self, headers=kept, fresh=True)


@dataclass(frozen=True)
class Reply:
    """What a store answers; of `body` only the first `sent` bytes arrive before the connection ends."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    sent: int | None = None


Forward = Callable[[Request], Reply]
When = Callable[[Request], bool]


@dataclass
class Fault:
    """What goes wrong, when, and how often (None: always). No reply: the connection ends without one."""

    when: When
    answer: Callable[[Request, Forward], Reply | None]
    times: int | None = None
    seen: int = 0


@dataclass
class Misbehaving:
    """Where to reach it, its faults (the first that fits counts), and what it was asked."""

    url: str
    faults: list[Fault] = field(default_factory=list)
    asked: list[Request] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, fault: Fault) -> Fault:
        self.faults.append(fault)
        return fault

    def fault_for(self, request: Request) -> Fault | None:
        with self._lock:
            self.asked.append(request)
            for fault in self.faults:
                if fault.when(request) and (fault.times is None or fault.seen < fault.times):
                    fault.seen += 1
                    return fault
        return None


def conditional(request: Request) -> bool:
    """A write with a condition."""
    return request.method == "PUT" and (request.has("if-none-match") or request.has("if-match"))


def conditional_on(part: str) -> When:
    """A write with a condition, to a key that holds `part`."""
    return lambda request: conditional(request) and part in request.key


def many_deletions(request: Request) -> bool:
    return request.method == "POST" and "delete" in request.query


def with_checksums(request: Request) -> bool:
    """Checksums of the newer kind, asked for or sent."""
    return request.has("x-amz-checksum-") or request.has("x-amz-sdk-checksum") or request.has("x-amz-trailer")


def anything(request: Request) -> bool:
    return True


def says(
    status: int, code: str, when: When = anything, times: int | None = None, message: str = "no"
) -> Fault:
    """The store answers an error, and does nothing."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()

    def answer(request: Request, forward: Forward) -> Reply:
        return Reply(status, {"Content-Type": "application/xml"}, b"" if request.method == "HEAD" else body)

    return Fault(when, answer, times)


def ignores(header: str) -> Fault:
    """The store takes a condition and does not look at it."""
    return Fault(
        lambda request: conditional(request) and request.has(header), lambda r, f: f(r.without(header))
    )


def loses_answers(when: When, times: int = 1) -> Fault:
    """The store does it, and nobody hears."""

    def answer(request: Request, forward: Forward) -> None:
        forward(request)

    return Fault(when, answer, times)


def cuts_bodies(when: When, times: int | None = None) -> Fault:
    """The connection ends in the middle of the answer."""

    def answer(request: Request, forward: Forward) -> Reply:
        whole = forward(request)
        return replace(whole, sent=len(whole.body) // 2)

    return Fault(when, answer, times)


def keeps(keys: Iterable[str], code: str = "AccessDenied", times: int | None = None) -> Fault:
    """DeleteObjects answers 200, deletes all but `keys`, and says so."""
    kept = set(keys)

    def answer(request: Request, forward: Forward) -> Reply:
        asked = re.findall(r"<Key>(.*?)</Key>", request.body.decode())
        others = "".join(f"<Object><Key>{key}</Key></Object>" for key in asked if key not in kept)
        if others:
            body = f'<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{others}</Delete>'.encode()
            assert forward(replace(request.without(*_CHECKSUMS), body=body)).status == 200
        errors = "".join(
            f"<Error><Key>{key}</Key><Code>{code}</Code><Message>no</Message></Error>"
            for key in asked
            if key in kept
        )
        found = f'<DeleteResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{errors}</DeleteResult>'
        return Reply(200, {"Content-Type": "application/xml"}, found.encode())

    return Fault(many_deletions, answer, times)


@contextmanager
def misbehaving(
    upstream: str, access_key: str, secret_key: str, certificate: tuple[Path, Path] | None = None
) -> Iterator[Misbehaving]:
    """The proxy while the block runs; with a `certificate` and its key it speaks TLS."""
    address = urlsplit(upstream).netloc
    signer = S3SigV4Auth(Credentials(access_key, secret_key), "s3", "us-east-1")

    def forward(request: Request) -> Reply:
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _HOP}
        if request.fresh:
            bare = {k: v for k, v in headers.items() if k.lower() not in _OF_THE_SIGNATURE}
            again = AWSRequest(request.method, f"{upstream}{request.target}", data=request.body, headers=bare)
            signer.add_auth(again)
            headers = {**dict(again.headers.items()), "Content-Length": str(len(request.body))}
        connection = http.client.HTTPConnection(address, timeout=30)
        try:
            connection.request(request.method, request.target, request.body, headers)
            answer = connection.getresponse()
            return Reply(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            request = Request(self.command, self.path, dict(self.headers.items()), self._body())
            fault = store.fault_for(request)
            reply = forward(request) if fault is None else fault.answer(request, forward)
            if reply is None:
                self.close_connection = True
                return
            self.send_response_only(reply.status)
            for name, value in reply.headers.items():
                if name.lower() not in (*_HOP, "content-length"):
                    self.send_header(name, value)
            length = reply.headers.get("Content-Length", "0") if self.command == "HEAD" else len(reply.body)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(reply.body[: reply.sent])
            self.close_connection = self.close_connection or reply.sent is not None

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            found = b""
            while size := int(self.rfile.readline(), 16):
                found += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return found

        def log_message(self, *_: object) -> None:
            """A test's output is not the place."""

    for method in ("GET", "PUT", "POST", "DELETE", "HEAD"):
        setattr(Handler, f"do_{method}", Handler._serve)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    scheme = "http" if certificate is None else "https"
    store = Misbehaving(f"{scheme}://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, name="misbehaving store", daemon=True)
    thread.start()
    try:
        yield store
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
