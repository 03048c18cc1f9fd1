"""The configuration of the inner nginx: which version of which ranker a request is for, and who is asked in its place.

A request is placed by the hash of its session, as nginx's `split_clients` does it: the canary has the first places, so a
session stays where it is while the share grows; the hash is salted with the canary's number, so another canary has
other sessions first. Versions are asked for by number, not by label, so that every attempt has a version to be counted under.

Identifiers are made here (`r1`, `r2`); a ranker's name stands only where a path is matched or asked for, and only a
name that `reshelve.names` takes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from reshelve.deployments.deployment_log import Pointer
from reshelve.gateway.configuration import (
    AGAIN,
    REQUEST_HEADER,
    SESSION_HEADER,
    TOLD_HEADER,
    VERSION_HEADER,
    Gateway,
    begin,
    ignored_headers,
    milliseconds,
    plain_path,
    says,
)
from reshelve.gateway.tokens import LARGEST_BODY
from reshelve.names import is_ranker

CANARY_PATIENCE = 0.5
"""Share of the deadline that a canary gets: the rest is the stable version's."""
SECOND_OPINION = "?"
"""Before a version's number: it was asked only to see whether a request is wrong or the version that refused it."""
IN_PLACE = "~"
"""Before a version's number: it was asked since the one that customers were to get was not there."""
_FINEST = 0.01  # percent: nginx takes no share below, and one ranker's must not keep all others as they were
_PAUSES = 25  # of one request's tries that fit into its deadline
_REJECTED = "400 401 403 409"
_BUSY = "429 503"
_FAILED = "404 429 500 501 502 503 504"
# Codes of nginx's own that lead to a named location; no server answers with them.
_TO_CANARY, _TO_STABLE = 418, 419


def render(gateway: Gateway, pointers: Mapping[str, Pointer], silent: Collection[str] = ()) -> str:
    """The whole configuration: one path per ranker that has a pointer. `silent`: servers that are asked last."""
    rankers = [
        pointers[name] for name in sorted(pointers) if is_ranker(name) and pointers[name].ranker == name
    ]
    return "\n".join(
        [
            *_begin(gateway, silent),
            *(line for number, pointer in enumerate(rankers, 1) for line in _sides(f"r{number}", pointer)),
            *_server(gateway),
            *(line for number, pointer in enumerate(rankers, 1) for line in _Ranker(gateway, f"r{number}", pointer).lines()),
            "    }",
            "}",
            "",
        ]
    )  # fmt: skip


def _begin(gateway: Gateway, silent: Collection[str]) -> list[str]:
    # No answer marks a server as failed: a few slow requests of one caller would take it from all others.
    servers = [
        f"        server {server} max_fails=0{' backup' if server in silent else ''};"
        for server in gateway.servers
    ]
    request = REQUEST_HEADER.lower().replace("-", "_")
    return [
        *begin(gateway, "inner", gateway.inner_pid, body_kilobytes=LARGEST_BODY, log_level="warn"),
        # nginx cannot wait, but it can limit: of one request, a try each `deadline / 25`; of all, 500 a second, so that
        # requests refused together do not come back together. The first try has no key, so no limit.
        "    map $server_addr $again {",
        f'        "unix:{plain_path(gateway.again)}" again;',
        '        default "";',
        "    }",
        "    map $again $one {",
        '        "" "";',
        f"        default $http_{request};",
        "    }",
        f"    limit_req_zone $one zone=one:8m rate={max(1, round(_PAUSES / gateway.timeout))}r/s;",
        "    limit_req_zone $again zone=all:64k rate=500r/s;",
        "    upstream servers {",
        *servers,
        "        keepalive 32;",
        "    }",
    ]


def _sides(identifier: str, pointer: Pointer) -> list[str]:
    if not _has_canary(pointer):
        return []
    session = SESSION_HEADER.lower().replace("-", "_")
    return [
        f'    split_clients "{pointer.ranker}/{pointer.canary}/$http_{session}" $side_{identifier} {{',
        f"        {min(max(100 * pointer.share, _FINEST), 100):.2f}% canary;",
        "        * stable;",
        "    }",
    ]


def _server(gateway: Gateway) -> list[str]:
    return [
        "    server {",
        f"        listen unix:{plain_path(gateway.first)};",
        f"        listen unix:{plain_path(gateway.again)};",
        "        limit_req zone=one burst=2;",
        "        limit_req zone=all burst=250;",
        f"        limit_req_status {AGAIN};",
        "        limit_req_log_level info;",
        '        proxy_set_header Connection "";',
        "        proxy_set_header Content-Type application/json;",
        f"        {ignored_headers()}",
        f"        proxy_hide_header {TOLD_HEADER};",
        f"        proxy_hide_header {VERSION_HEADER};",
        "        proxy_intercept_errors on;",
        "        recursive_error_pages on;",
        # Predict changes nothing. A busy server (429, 503) is another try's, after a pause. `timeout` is one of
        # connecting: a request that was begun has used up `proxy_next_upstream_timeout`, and burdens no second server.
        "        proxy_next_upstream error timeout http_502 non_idempotent;",
        f"        proxy_connect_timeout {milliseconds(gateway.timeout * CANARY_PATIENCE)};",
        *says("location /", 404, {"error": "Not found: no such ranker"}),
    ]


def _has_canary(pointer: Pointer) -> bool:
    return pointer.canary is not None and pointer.share > 0


class _Ranker:
    """The locations of one ranker. Only named locations ask a server: nobody can name one in a request."""

    def __init__(self, gateway: Gateway, identifier: str, pointer: Pointer) -> None:
        self.gateway, self.id, self.pointer = gateway, identifier, pointer
        self.patience = gateway.timeout * CANARY_PATIENCE

    def lines(self) -> list[str]:
        path = f"location = /v1/models/{self.pointer.ranker}:predict"
        if self.pointer.stable is None:
            return says(path, 503, {"error": "nothing serves yet"})
        side = f"$side_{self.id}" if _has_canary(self.pointer) else "stable"
        return [
            f"        {path} {{",
            f"            set $asked {self.pointer.sequence};",
            f"            error_page {_TO_CANARY} = @{self.id}_canary;",
            f"            error_page {_TO_STABLE} = @{self.id}_stable;",
            f"            set $side {side};",
            f"            if ($side = canary) {{ return {_TO_CANARY}; }}",
            f"            return {_TO_STABLE};",
            "        }",
            *self._canary(self.pointer.stable),
            *self._stable("stable", self.pointer.stable, self.gateway.timeout),
            *self._in_place_of(self.pointer.stable),
            *says(f"location @{self.id}_again", AGAIN, {"error": "busy"}, self._told()),
        ]

    def _canary(self, stable: int) -> list[str]:
        """Whatever a canary answers but success, the stable version is asked: even a refusal may be the canary's fault."""
        if not _has_canary(self.pointer):
            return []
        instead = {f"{_REJECTED} {_FAILED}": "instead"}
        return [
            *self._asks("canary", self.pointer.canary, self.patience, instead),
            *self._stable("instead", stable, self.gateway.timeout - self.patience),
        ]

    def _stable(self, location: str, version: int, seconds: float) -> list[str]:
        leads = {"404": "absent", _BUSY: "again"}
        if self.pointer.previous is not None:
            leads[_REJECTED] = "second"
        return self._asks(location, version, seconds, leads)

    def _in_place_of(self, stable: int) -> list[str]:
        """Who is asked where the stable version is not there (yet), or refuses what a caller sent."""
        seconds = self.gateway.timeout - self.patience
        previous = self.pointer.previous
        # A server that just came back may serve what its agent had before: the version before, or what has the label.
        labelled = self._asks("labelled", None, seconds, {"400 404": "again", _BUSY: "again"}, IN_PLACE)
        if previous is None:
            return [line.replace(f"@{self.id}_labelled {{", f"@{self.id}_absent {{") for line in labelled]
        return [
            *self._asks("absent", previous, seconds, {"404": "labelled", _BUSY: "again"}, IN_PLACE),
            *labelled,
            # What both refuse is the caller's fault, what only the newer one does is that version's.
            *self._asks("second", previous, seconds, {_FAILED: "refused"}, SECOND_OPINION),
            *self._asks("refused", stable, seconds, {_BUSY: "again"}, SECOND_OPINION),
        ]

    def _asks(
        self, location: str, version: int | None, seconds: float, leads: Mapping[str, str], mark: str = ""
    ) -> list[str]:
        """A location that asks the model servers for a version (None: the label stable); codes lead to other locations."""
        asked = "labels/stable" if version is None else f"versions/{version}"
        return [
            f"        location @{self.id}_{location} {{",
            f'            set $asked "$asked {mark}{version or 0}";',
            f"            {self._told()}",
            *([f"            add_header {VERSION_HEADER} {version} always;"] if version else []),
            f"            set $path /v1/models/{self.pointer.ranker}/{asked}:predict;",
            "            proxy_pass http://servers$path;",
            f"            proxy_read_timeout {milliseconds(seconds)};",
            f"            proxy_next_upstream_timeout {milliseconds(seconds)};",
            *(f"            error_page {codes} = @{self.id}_{to};" for codes, to in leads.items()),
            "        }",
        ]

    def _told(self) -> str:
        return f'add_header {TOLD_HEADER} "$asked|$upstream_status|$upstream_header_time" always;'
