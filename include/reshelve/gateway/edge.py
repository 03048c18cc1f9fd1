"""The configuration of the edge: TLS, tokens, Predict alone, and a second try for what nobody has begun."""

from __future__ import annotations

import json
import re

from reshelve.gateway.configuration import (
    AGAIN,
    REQUEST_HEADER,
    SESSION_HEADER,
    TOLD_HEADER,
    Gateway,
    begin,
    milliseconds,
    plain_path,
    says,
)

TRIES = 12
"""Further tries of a request that was refused, each after a pause of `gateway_inner`; all within half of the deadline."""
_IDLE_SECONDS = 300  # a caller's connection that nothing came on for so long is closed
_SLACK_SECONDS = 1.0  # the inner nginx ends what takes too long; the edge only where that one hangs


def render(gateway: Gateway) -> str:
    """The whole configuration. Raises ConfigurationError for a path that cannot stand in it."""
    header = SESSION_HEADER.lower().replace("-", "_")
    # A string in nginx's `map` matches in any case, a regular expression does not.
    tokens = [f'        "~^Bearer {re.escape(token)}\\z" 1;' for token in gateway.tokens]
    told = TOLD_HEADER.lower().replace("-", "_")
    line = f'{{"ranker": "$ranker", "status": "$upstream_status", "told": "$upstream_http_{told}"}}'
    return "\n".join(
        [
            *begin(gateway, "edge", gateway.edge_pid),
            f"    keepalive_timeout {_IDLE_SECONDS}s;",
            "    keepalive_requests 1000000;",
            "    map $http_authorization $known {",
            "        default 0;",
            *tokens,
            "    }",
            f"    map $http_{header} $session {{",
            '        "" $request_id;  # a caller without sessions is spread evenly',
            f"        default $http_{header};",
            "    }",
            f"    map $upstream_http_{told} $counts {{",
            '        "" 0;',
            "        default 1;",
            "    }",
            f"    log_format told escape=json '{line}';",
            "    upstream inner {",
            f"        server unix:{plain_path(gateway.first)} max_fails=0;",
            *[f"        server unix:{plain_path(gateway.again)} max_fails=0 backup;"] * TRIES,
            "    }",
            *_server(gateway),
            "}",
            "",
        ]
    )


def _server(gateway: Gateway) -> list[str]:
    log = f"syslog:server=unix:{plain_path(gateway.counts)},nohostname,tag=reshelve"
    return [
        "    server {",
        f"        listen {gateway.listen} ssl;",
        f"        ssl_certificate {plain_path(gateway.certificate)};",
        f"        ssl_certificate_key {plain_path(gateway.key)};",
        "        ssl_protocols TLSv1.2 TLSv1.3;",
        "        ssl_session_cache shared:tls:4m;",
        "        set $ranker '';",
        f"        access_log {log} told if=$counts;",
        "        location = /health {",
        f"            if (-f {plain_path(gateway.ready)}) {{ {_return(200, {'status': 'ok'})} }}",
        f"            {_return(503, {'status': 'not ready: a stable version does not answer yet'})}",
        "        }",
        *says("location /", 404, {"error": "Not found: POST /v1/models/<ranker>:predict"}),
        *says(
            "location @busy",
            503,
            {"error": "the model servers are busy, or do not have the version yet: try again"},
            'add_header Retry-After "1" always;',
        ),
        # The name is matched here and passed on as it was matched: whether there is such a ranker the inner nginx knows.
        r'        location ~ "^/v1/models/(?<name>[a-z][a-z0-9_]{0,40}):predict\z" {',
        "            set $ranker $name;",
        f"            if ($known = 0) {{ {_return(401, {'error': 'Unauthorized: Authorization: Bearer <token>'})} }}",
        f"            if ($request_method != POST) {{ {_return(405, {'error': 'Method not allowed: use POST'})} }}",
        "            proxy_pass http://inner/v1/models/$name:predict;",
        '            proxy_set_header Connection "";',
        '            proxy_set_header Authorization "";',
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


def _return(status: int, body: dict[str, str]) -> str:
    return f"return {status} '{json.dumps(body)}';"
