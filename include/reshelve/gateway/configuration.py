"""What the gateway's two nginx have in common. Each configuration is a pure function, to be tested without nginx.

The *edge* meets callers: TLS, limits, one path. Nothing that comes from the store is in its configuration, and a move
of a pointer changes nothing in it: it is not read again, so no caller's connection is closed. The *inner* one is behind
a socket of the file system, knows rankers, versions and shares, and is read again at each move. Neither has a secret
but the certificate's key; whether a request gets in, the edge asks the admission processes.
"""

from __future__ import annotations

import json
import os
import re
import resource
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from reshelve.errors import ConfigurationError

SESSION_HEADER = "X-Reshelve-Session"
VERSION_HEADER = "X-Reshelve-Version"
REQUEST_HEADER = "X-Reshelve-Request"
"""Between edge and inner: the same for every try of one request."""
TOLD_HEADER = "X-Reshelve-Told"
"""Between inner and edge: who was asked and what they answered; it never reaches a caller."""
RANKER_HEADER = "X-Reshelve-Ranker"
"""Between edge and admission: which ranker a request is for."""
CALLER_HEADER = "X-Reshelve-Caller"
"""Between admission and edge: the name of the token that was let in."""
ADMITTED = "@admitted"
"""The edge's location of requests that were let in."""
ADMISSION_PROCESSES = 2
"""One answers while another one is started again."""
AGAIN = 429
"""Between inner and edge: nobody began the request, ask once more."""
_CONNECTIONS = 8192  # of each worker
_MOST_WORKERS = 4
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9._/@+=,~-]*")


@dataclass(frozen=True)
class Gateway:
    """What does not change while the gateway runs.

    `timeout` in seconds, for a whole request; `hosts`: what a caller may write as Host; `per_address`: requests a second,
    and as many at once, from one address (0: any number); `tokens`: the file of hashed tokens.
    """

    listen: str
    servers: tuple[str, ...]
    certificate: Path
    key: Path
    hosts: tuple[str, ...]
    per_address: int
    tokens: Path
    timeout: float
    directory: Path

    @property
    def edge_configuration(self) -> Path:
        """Where the edge reads its configuration."""
        return self.directory / "nginx.conf"

    @property
    def edge_pid(self) -> Path:
        """Where the edge says who it is."""
        return self.directory / "nginx.pid"

    @property
    def inner_configuration(self) -> Path:
        """Where the inner nginx reads its configuration."""
        return self.directory / "inner.conf"

    @property
    def inner_pid(self) -> Path:
        """Where the inner nginx says who it is."""
        return self.directory / "inner.pid"

    @property
    def first(self) -> Path:
        """Where the inner nginx takes a request's first try."""
        return self.directory / "first.sock"

    @property
    def again(self) -> Path:
        """Where it takes the further tries, each after a pause."""
        return self.directory / "again.sock"

    @property
    def admissions(self) -> tuple[Path, ...]:
        """Where the admission processes are asked."""
        return tuple(self.directory / f"admission{n}.sock" for n in range(1, ADMISSION_PROCESSES + 1))

    @property
    def counts(self) -> Path:
        """Where the edge reports each request, as datagrams."""
        return self.directory / "traffic.sock"

    @property
    def ready(self) -> Path:
        """A file that is there while the gateway is ready: nginx looks at each question, nothing is read again."""
        return self.directory / "ready"

    @property
    def empty(self) -> Path:
        """A directory without anything: the prefix and the root of both, so that no file can be asked for."""
        return self.directory / "empty"


def plain_path(path: Path) -> str:
    """A path that may stand in a configuration. Raises ConfigurationError for one with spaces, quotes, `;` and the like."""
    text = str(path)
    if _PLAIN_PATH.fullmatch(text) is None:
        raise ConfigurationError(
            f"{text!r} cannot be used in nginx's configuration",
            "expected an absolute path of letters, digits and . _ / @ + = , ~ -",
        )
    return text


def begin(gateway: Gateway, name: str, pid: Path, *, body_kilobytes: int, log_level: str) -> list[str]:
    """The lines before the servers. `name` keeps the temporary directories of the two apart."""
    temporary = [
        f"    {kind}_temp_path {plain_path(gateway.directory / f'{name}_{kind}')};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    ]
    return [
        # Started by root, nginx would give its workers to a user who cannot reach the home.
        *(["user root;"] if os.geteuid() == 0 else []),
        f"worker_processes {_workers()};",
        f"worker_shutdown_timeout {milliseconds(2 * gateway.timeout + 5)};",
        f"pid {plain_path(pid)};",
        f"error_log stderr {log_level};",
        f"worker_rlimit_nofile {_open_files()};",
        f"events {{ worker_connections {_CONNECTIONS}; }}",
        "http {",
        *temporary,
        f"    root {plain_path(gateway.empty)};",
        "    access_log off;",
        "    server_tokens off;",
        "    default_type application/json;",
        f"    client_max_body_size {body_kilobytes}k;",
        f"    client_body_buffer_size {body_kilobytes}k;  # never to a file: bodies hold what customers typed",
        # Of what a caller wrote only what is named further on is sent on: no Content-Encoding, no Host, no cookies.
        "    proxy_pass_request_headers off;",
        "    proxy_set_header Content-Type application/json;",
        "    proxy_redirect off;",
        "    absolute_redirect off;",
        "    proxy_buffers 16 64k;",
        "    proxy_max_temp_file_size 0;",
        "    proxy_http_version 1.1;",
        "    map_hash_bucket_size 256;",
    ]


def says(location: str, status: int, body: Mapping[str, str], *more: str) -> list[str]:
    """A location that answers by itself; `more` lines come before the answer."""
    return [f"        {location} {{", *(f"            {line}" for line in more), f"            return {status} '{json.dumps(body)}';", "        }"]  # fmt: skip


def ignored_headers() -> str:
    """A line for locations that ask: what a server answers is content, and tells nginx nothing."""
    return "proxy_ignore_headers X-Accel-Redirect X-Accel-Expires X-Accel-Limit-Rate X-Accel-Buffering X-Accel-Charset;"


def _workers() -> int:
    """One for each core that this process may use, and no more than a gateway needs: each has a buffer for every request."""
    return min(_MOST_WORKERS, len(os.sched_getaffinity(0)))


def _open_files() -> int:
    """Two for each connection, where the system allows it: nginx would refuse callers long before it has as many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * _CONNECTIONS
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)


def milliseconds(seconds: float) -> str:
    """Seconds as nginx writes them."""
    return f"{max(1, round(seconds * 1000))}ms"
