"""The configuration of the edge: TLS, limits, Predict alone, and a second try for what nobody has begun.

A request's way: the limits of its address and of its token, so that what is too much costs nothing; then its body is
read, and admission is asked; what it lets in goes to the inner nginx.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from reshelve.gateway.configuration import (
    ADMITTED,
    AGAIN,
    CALLER_HEADER,
    RANKER_HEADER,
    REQUEST_HEADER,
    SESSION_HEADER,
    TOLD_HEADER,
    Gateway,
    begin,
    ignored_headers,
    milliseconds,
    plain_path,
    says,
)
from reshelve.gateway.tokens import Limits, Token

TRIES = 12
"""Further tries of a request that was refused, each after a pause of `gateway_inner`; all within half of the deadline."""
_IDLE_SECONDS = 300  # a caller's connection that nothing came on for so long is closed
_SLOW_SECONDS = 10  # for a whole head, and between two pieces of a body or of an answer that a caller takes
_SLACK_SECONDS = 1.0  # the inner nginx ends what takes too long; the edge only where that one hangs
_ADMISSION_SECONDS = 2.0


def render(gateway: Gateway, tokens: Sequence[Token] = (), pair: str = "") -> str:
    """The whole configuration. Of the tokens only names and limits are in it, and only of those with limits of their own.

    `pair`: the digest of certificate and key. nginx reads them with its configuration alone, so a renewed one changes it.

    Raises ConfigurationError for a path that cannot stand in it.
    """
    header = SESSION_HEADER.lower().replace("-", "_")
    told = TOLD_HEADER.lower().replace("-", "_")
    line = f'{{"ranker": "$ranker", "token": "$caller", "status": "$upstream_status", "told": "$upstream_http_{told}"}}'
    bodies = max(limits.body_kilobytes for limits in (Limits(), *(token.limits for token in tokens)))
    # `crit`: anyone may cause a line below that, and nobody is to fill a disk with them.
    return "\n".join(
        [
            *([f"# certificate and key: {pair}"] if pair else []),
            *begin(gateway, "edge", gateway.edge_pid, body_kilobytes=bodies, log_level="crit"),
            f"    keepalive_timeout {_IDLE_SECONDS}s;",
            "    keepalive_requests 1000000;",
            f"    client_header_timeout {_SLOW_SECONDS}s;",
            f"    client_body_timeout {_SLOW_SECONDS}s;",
            f"    send_timeout {_SLOW_SECONDS}s;",
            "    reset_timedout_connection on;",
            "    server_names_hash_bucket_size 512;",
            f"    map $http_{header} $session {{",
            '        "" $request_id;  # a caller without sessions is spread evenly',
            f"        default $http_{header};",
            "    }",
            "    map $http_content_encoding $encoded {",
            '        "" 0;',
            "        default 1;",
            "    }",
            f"    map $upstream_http_{told} $counts {{",
            '        "" 0;',
            "        default 1;",
            "    }",
            f"    log_format told escape=json '{line}';",
            *_limits(gateway, tokens),
            "    upstream inner {",
            f"        server unix:{plain_path(gateway.first)} max_fails=0;",
            *[f"        server unix:{plain_path(gateway.again)} max_fails=0 backup;"] * TRIES,
            "    }",
            "    upstream admission {",
            *[f"        server unix:{plain_path(socket)} max_fails=0;" for socket in gateway.admissions],
            "        keepalive 16;",
            "    }",
            *_strangers(gateway),
            *_server(gateway, tokens),
            "}",
            "",
        ]
    )


def _classes(tokens: Sequence[Token]) -> dict[tuple[int, int], str]:
    """An identifier for each pair of requests a second and at once; the default's is first."""
    pairs = [(one.requests_per_second, one.concurrent) for one in (Limits(), *(t.limits for t in tokens))]
    return {pair: f"c{number}" for number, pair in enumerate(dict.fromkeys(pairs))}


def _limits(gateway: Gateway, tokens: Sequence[Token]) -> list[str]:
    """Zones by the whole token that came, right or wrong: who has only its name takes nothing of what its owner may."""
    classes = _classes(tokens)
    named = [
        f'        "~^{token.name}\\." {identifier};'
        for token in tokens
        if (identifier := classes[token.limits.requests_per_second, token.limits.concurrent]) != "c0"
        and not token.given
    ]
    lines = [
        '    map $http_authorization $bearer { default ""; "~^Bearer (?<word>[A-Za-z0-9._~+/=-]{32,200})\\z" $word; }',
        "    map $bearer $class {",
        "        default c0;",
        *named,
        "    }",
    ]
    for (rate, _), identifier in classes.items():
        lines += [
            f'    map $class $key_{identifier} {{ default ""; {identifier} $bearer; }}',
            f"    limit_req_zone $key_{identifier} zone=rate_{identifier}:8m rate={rate}r/s;",
            f"    limit_conn_zone $key_{identifier} zone=at_once_{identifier}:8m;",
        ]
    if gateway.per_address:
        lines += [
            f"    limit_req_zone $binary_remote_addr zone=address:8m rate={gateway.per_address}r/s;",
            "    limit_conn_zone $binary_remote_addr zone=address_at_once:8m;",
        ]
    return [*lines, f"    limit_req_status {AGAIN};", f"    limit_conn_status {AGAIN};"]


def _applied(gateway: Gateway, tokens: Sequence[Token]) -> list[str]:
    found = []
    for (rate, at_once), identifier in _classes(tokens).items():
        found += [
            f"            limit_req zone=rate_{identifier} burst={rate} nodelay;",
            f"            limit_conn at_once_{identifier} {at_once};",
        ]
    if gateway.per_address:
        found += [
            f"            limit_req zone=address burst={gateway.per_address} nodelay;",
            f"            limit_conn address_at_once {gateway.per_address};",
        ]
    return found


def _listens(gateway: Gateway, more: str = "") -> list[str]:
    return [
        "    server {",
        f"        listen {gateway.listen} ssl{more};",
        f"        ssl_certificate {plain_path(gateway.certificate)};",
        f"        ssl_certificate_key {plain_path(gateway.key)};",
        "        ssl_protocols TLSv1.2 TLSv1.3;",
        "        ssl_session_cache shared:tls:4m;",
        "        location = /health {",
        f"            if (-f {plain_path(gateway.ready)}) {{ {_return(200, {'status': 'ok'})} }}",
        f"            {_return(503, {'status': 'not ready: a stable version does not answer yet'})}",
        "        }",
    ]


def _strangers(gateway: Gateway) -> list[str]:
    """Whoever asks for another host: nothing but `/health`, which load balancers ask by the address."""
    said = {"error": "Misdirected request: this host is not served here"}
    return [*_listens(gateway, " default_server"), *says("location /", 421, said), "    }"]


def _server(gateway: Gateway, tokens: Sequence[Token]) -> list[str]:
    log = f"syslog:server=unix:{plain_path(gateway.counts)},nohostname,tag=reshelve"
    return [
        *_listens(gateway),
        f"        server_name {' '.join(gateway.hosts)};",
        "        set $ranker '';",
        "        set $caller '';",
        f"        access_log {log} told if=$counts;",
        *says("location /", 404, {"error": "Not found: POST /v1/models/<ranker>:predict"}),
        *_later("@busy", 503, "the model servers are busy, or do not have the version yet: try again"),
        *_later(
            "@limited", AGAIN, "too many requests, or too many at once: the limits of this token or address"
        ),
        *_later("@shut", 503, "the gateway cannot judge requests right now: try again"),
        # The name is matched here and passed on as it was matched: whether there is such a ranker the inner nginx knows.
        r'        location ~ "^/v1/models/(?<name>[a-z][a-z0-9_]{0,40}):predict\z" {',
        "            set $ranker $name;",
        f"            if ($bearer = '') {{ {_return(401, {'error': 'Unauthorized: Authorization: Bearer <token>'})} }}",
        f"            if ($request_method != POST) {{ {_return(405, {'error': 'Method not allowed: use POST'})} }}",
        f"            if ($encoded) {{ {_return(415, {'error': 'Content-Encoding is not supported: send plain JSON'})} }}",
        f"            if ($is_args) {{ {_return(400, {'error': 'Bad request: nothing may follow :predict'})} }}",
        *_applied(gateway, tokens),
        f"            error_page {AGAIN} = @limited;",
        "            proxy_pass http://admission;",
        '            proxy_set_header Connection "";',
        "            proxy_set_header Authorization $http_authorization;",
        f"            proxy_set_header {RANKER_HEADER} $ranker;",
        "            proxy_next_upstream error timeout non_idempotent;",
        f"            proxy_connect_timeout {milliseconds(_ADMISSION_SECONDS)};",
        f"            proxy_read_timeout {milliseconds(_ADMISSION_SECONDS)};",
        "            error_page 502 504 = @shut;",
        "        }",
        f"        location {ADMITTED} {{",
        f"            set $caller $upstream_http_{CALLER_HEADER.lower().replace('-', '_')};",
        "            proxy_pass http://inner/v1/models/$ranker:predict;",
        f"            {ignored_headers()}",
        '            proxy_set_header Connection "";',
        "            proxy_set_header Content-Type application/json;",
        f"            proxy_set_header {SESSION_HEADER} $session;",
        f"            proxy_set_header {REQUEST_HEADER} $request_id;",
        f"            proxy_hide_header {TOLD_HEADER};",
        # Predict changes nothing. `error`: the inner nginx was just read again, or is being started.
        f"            proxy_next_upstream error http_{AGAIN} non_idempotent;",
        f"            proxy_next_upstream_tries {TRIES + 1};",
        f"            proxy_next_upstream_timeout {milliseconds(gateway.timeout / 2)};",
        f"            proxy_read_timeout {milliseconds(2 * gateway.timeout + _SLACK_SECONDS)};",
        "            proxy_intercept_errors on;",
        f"            error_page {AGAIN} = @busy;",
        "        }",
        "    }",
    ]


def _later(location: str, status: int, error: str) -> list[str]:
    """A location that says that a request may be made again."""
    return says(f"location {location}", status, {"error": error}, 'add_header Retry-After "1" always;')


def _return(status: int, body: dict[str, str]) -> str:
    return f"return {status} '{json.dumps(body)}';"
