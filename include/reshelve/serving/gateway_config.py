"""nginx's configuration for the pointers as they are: a pure function, so that what is written can be tested without nginx.

A request is placed by the hash of its session, as nginx's `split_clients` does it: the canary has the first places, so a
session stays where it is while the share grows; the hash is salted with the canary's number, so another canary has
other sessions first. Versions are asked for by number, not by label, so that every attempt has a version to be counted under.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reshelve.store.deployments import Pointer

SESSION_HEADER = "X-Reshelve-Session"
VERSION_HEADER = "X-Reshelve-Version"
_CANARY_PATIENCE = 0.5  # share of the deadline that a canary gets: the rest is the stable version's
# Whatever a canary answers but success, the stable version is asked: even a refusal may be the canary's own fault.
_CANARY_FAILED = "400 404 429 500 501 502 503 504"
# Codes of nginx's own that lead to a named location; no server answers with them.
_TO_CANARY, _TO_STABLE = 418, 419


@dataclass(frozen=True)
class Gateway:
    """What does not change while the gateway runs. `timeout` in seconds, for a whole request."""

    listen: str
    servers: tuple[str, ...]
    certificate: Path
    key: Path
    tokens: tuple[str, ...]
    timeout: float
    directory: Path

    @property
    def configuration(self) -> Path:
        """Where nginx reads it."""
        return self.directory / "nginx.conf"

    @property
    def pid_file(self) -> Path:
        """Where nginx says who it is."""
        return self.directory / "nginx.pid"

    @property
    def socket(self) -> Path:
        """Where nginx reports each request, as datagrams."""
        return self.directory / "traffic.sock"


def render(gateway: Gateway, pointers: Mapping[str, Pointer]) -> str:
    """The whole configuration: TLS, tokens, and one path per ranker. Nothing else of a model server can be reached."""
    rankers = [pointers[name] for name in sorted(pointers)]
    return "\n".join(
        [
            *_top(gateway),
            *(line for pointer in rankers if pointer.stable is not None for line in _http_of(pointer)),
            *_server_begin(gateway),
            *(line for pointer in rankers for line in _locations_of(gateway, pointer)),
            "    }",
            "}",
            "",
        ]
    )


def _top(gateway: Gateway) -> list[str]:
    tokens = [f'        "Bearer {token}" 1;' for token in gateway.tokens]
    servers = [f"        server {server} max_fails=1 fail_timeout=1s;" for server in gateway.servers]
    temporary = [
        f"    {kind}_temp_path {gateway.directory}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    ]
    return [
        # Started by root, nginx would give its workers to a user who cannot reach the home.
        *(["user root;"] if os.geteuid() == 0 else []),
        "worker_processes auto;",
        f"pid {gateway.pid_file};",
        "error_log stderr warn;",
        "events { worker_connections 4096; }",
        "http {",
        *temporary,
        "    access_log off;",
        "    server_tokens off;",
        "    default_type application/json;",
        "    client_max_body_size 1m;",
        "    client_body_buffer_size 1m;  # never to a file: bodies hold what customers typed",
        "    proxy_buffers 16 64k;",
        "    proxy_max_temp_file_size 0;",
        "    map_hash_bucket_size 256;",
        "    map $http_authorization $known {",
        "        default 0;",
        *tokens,
        "    }",
        f"    map $http_{SESSION_HEADER.lower().replace('-', '_')} $session {{",
        '        "" $request_id;  # a caller without sessions is spread evenly',
        f"        default $http_{SESSION_HEADER.lower().replace('-', '_')};",
        "    }",
        "    upstream servers {",
        *servers,
        "        keepalive 32;",
        "    }",
    ]


def _server_begin(gateway: Gateway) -> list[str]:
    return [
        "    server {",
        f"        listen {gateway.listen} ssl;",
        f"        ssl_certificate {gateway.certificate};",
        f"        ssl_certificate_key {gateway.key};",
        "        ssl_protocols TLSv1.2 TLSv1.3;",
        "        ssl_session_cache shared:tls:4m;",
        "        proxy_http_version 1.1;",
        '        proxy_set_header Connection "";',
        '        proxy_set_header Authorization "";',
        f'        proxy_set_header {SESSION_HEADER} "";',
        "        proxy_intercept_errors on;",
        "        recursive_error_pages on;",
        "        proxy_next_upstream error timeout http_502 http_503 http_429 non_idempotent;"
        "  # Predict changes nothing",
        f"        proxy_connect_timeout {_milliseconds(gateway.timeout * _CANARY_PATIENCE)};",
        *_says("location = /health", 200, {"status": "ok"}),
        *_says("location /", 404, {"error": "Not found: POST /v1/models/<ranker>:predict"}),
    ]  # fmt: skip


def _http_of(pointer: Pointer) -> list[str]:
    """What nginx wants outside `server`: how sessions are split, and the line that reports a request."""
    share, name = pointer.share if pointer.canary is not None else 0.0, pointer.ranker
    begun = {"ranker": name, "sequence": pointer.sequence, "stable": pointer.stable, "canary": pointer.canary}
    line = (
        json.dumps(begun)[:-1]
        + ', "side": "$side", "status": "$upstream_status", "seconds": "$upstream_response_time"}'
    )
    lines = [f"    log_format {name} escape=json '{line}';"]
    if share:
        lines += [
            f'    split_clients "{name}/{pointer.canary}/$session" $side_{name} {{',
            f"        {100 * share:.2f}% canary;",
            "        * stable;",
            "    }",
        ]
    return lines


def _locations_of(gateway: Gateway, pointer: Pointer) -> list[str]:
    name = pointer.ranker
    if pointer.stable is None:
        return _says(f"location = /v1/models/{name}:predict", 503, {"error": f"{name}: nothing serves yet"})
    side = f"$side_{name}" if pointer.share else "stable"
    log = f"access_log syslog:server=unix:{gateway.socket},nohostname,tag=reshelve {name};"
    whole, canary = gateway.timeout, gateway.timeout * _CANARY_PATIENCE
    # Only named locations ask a server: a caller cannot name one, so nothing goes round the token.
    lines = [
        f"        location = /v1/models/{name}:predict {{",
        f"            if ($known = 0) {{ {_return(401, 'Unauthorized: Authorization: Bearer <token>')} }}",
        f"            if ($request_method != POST) {{ {_return(405, 'Method not allowed: use POST')} }}",
        f"            set $side {side};",
        f"            error_page {_TO_CANARY} = @canary_{name};",
        f"            error_page {_TO_STABLE} = @stable_{name};",
        f"            if ($side = canary) {{ return {_TO_CANARY}; }}",
        f"            return {_TO_STABLE};",
        "        }",
        # A server that just came back may still serve what its agent had before: then the label is asked.
        *_asks(f"@stable_{name}", f"{name}/versions/{pointer.stable}", log, whole, pointer.stable, "404"),
        *_asks(f"@labelled_{name}", f"{name}/labels/stable", log, whole - canary, pointer.stable),
    ]
    if pointer.share:
        path = f"{name}/versions/{pointer.canary}"
        lines += _asks(f"@canary_{name}", path, log, canary, pointer.canary, _CANARY_FAILED)
    return lines


def _asks(
    location: str, path: str, log: str, seconds: float, version: int | None, failed: str = ""
) -> list[str]:
    """A location that asks the model servers for `path`; with one of the codes `failed` the request goes to the label."""
    labelled = "@labelled_" + location.partition("_")[2]
    return [
        f"        location {location} {{",
        f"            {log}",
        f"            add_header {VERSION_HEADER} {version} always;",
        f"            set $path /v1/models/{path}:predict;",
        "            proxy_pass http://servers$path;",
        f"            proxy_read_timeout {_milliseconds(seconds)};",
        f"            proxy_next_upstream_timeout {_milliseconds(seconds)};",
        *(
            [f"            error_page {failed} = {labelled};"]
            if failed
            else ["            proxy_intercept_errors off;"]
        ),
        "        }",
    ]


def _says(location: str, status: int, body: Mapping[str, str]) -> list[str]:
    return [f"        {location} {{ return {status} '{json.dumps(body)}'; }}"]


def _return(status: int, error: str) -> str:
    return f"return {status} '{json.dumps({'error': error})}';"


def _milliseconds(seconds: float) -> str:
    return f"{max(1, round(seconds * 1000))}ms"


def attempts(statuses: str, seconds: str) -> Iterable[tuple[str, float]]:
    """nginx's `$upstream_status` and `$upstream_response_time` as one (status, seconds) per group of servers asked.

    Within a group servers are separated by commas (the last one's status counts, all their time), groups by colons.
    Nothing for a caller that went away before any server answered.
    """
    for group, times in zip(_groups(statuses), _groups(seconds), strict=True):
        if group[-1] != "-":
            yield group[-1], sum(float(time) for time in times if time != "-")


def _groups(text: str) -> Sequence[Sequence[str]]:
    return [group.split(", ") for group in text.split(" : ")]
