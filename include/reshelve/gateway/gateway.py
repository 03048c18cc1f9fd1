"""The gateway for callers in other languages: nginx with TLS and a token, whose weights follow the pointers.

This process writes the configurations of two nginx (`gateway_config`), has the inner one read again when a pointer
moves, and counts what the edge reports of each request, by version, as the client library does. Both live on when this
process dies: the next one takes them over.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import threading
from collections.abc import Sequence
from pathlib import Path

from reshelve.errors import ConfigurationError, TryAgainError
from reshelve.gateway import edge as gateway_edge
from reshelve.gateway import inner as gateway_inner
from reshelve.gateway.certificate import self_signed
from reshelve.gateway.configuration import Gateway
from reshelve.gateway.counts import Counter
from reshelve.gateway.nginx import Nginx
from reshelve.gateway.ready import Readiness, Stable
from reshelve.logs import logger
from reshelve.names import require_address
from reshelve.processes import only_one
from reshelve.protocol.pointers import Pointers
from reshelve.protocol.traffic import write_traffic
from reshelve.settings import settings
from reshelve.store.objects import ObjectStore, impatient_store

_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{16,200}")
_LONGEST_SOCKET_PATH = 100  # of 107 bytes that the kernel takes


def run_gateway(
    listen: str,
    servers: Sequence[str],
    certificate: Path | None,
    key: Path | None,
    timeout: float,
    every: float,
) -> None:
    """Run until SIGTERM or SIGINT; nginx finishes its requests and stops with it.

    Raises ConfigurationError without nginx, token or a whole certificate, and for what cannot be used in nginx's configuration; AlreadyRunningError where another gateway keeps the home.
    """
    if shutil.which("nginx") is None:
        raise ConfigurationError("nginx is not installed", "Debian: apt-get install nginx-light")
    gateway = configured(listen, servers, certificate, key, timeout)
    if os.geteuid() == 0:
        logger(part="gateway").warning("nginx runs as root: run the gateway as its own user")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    pointers, looked = Pointers(impatient_store()), threading.Event()
    with only_one(gateway.directory / ".gateway.lock", "gateway"):
        if _edge(gateway).pid() is None:
            gateway.ready.unlink(missing_ok=True)
        with (
            Counter(gateway.counts) as counter,
            Readiness(gateway.ready, gateway.servers, lambda: _stable(pointers) if looked.is_set() else None),
        ):
            _follow(gateway, pointers, looked, counter, stop, every)


def configured(
    listen: str, servers: Sequence[str], certificate: Path | None, key: Path | None, timeout: float
) -> Gateway:
    """What a person asked for, each part as it may stand in nginx's configuration. Makes the gateway's directory.

    Raises ConfigurationError naming the part that may not.
    """
    directory = settings().home / "gateway"
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)
    asked = tuple(servers) or (settings().model_server_rest,)
    gateway = Gateway(
        require_address(listen, "--listen"),
        tuple(require_address(server, "--server") for server in asked),
        *_certificate(certificate, key, directory),
        tokens(),
        timeout,
        directory,
    )
    gateway.empty.mkdir(exist_ok=True)
    if any(gateway.empty.iterdir()):
        raise ConfigurationError(f"{gateway.empty} is not empty", "expected a directory that holds nothing")
    longest = max((gateway.counts, gateway.first, gateway.again), key=lambda path: len(os.fsencode(path)))
    if len(os.fsencode(longest)) > _LONGEST_SOCKET_PATH:
        raise ConfigurationError(f"{longest}: too long for a socket", "set RESHELVE_HOME to a shorter path")
    gateway_edge.render(gateway)  # its paths are checked before anything is started
    return gateway


def tokens() -> tuple[str, ...]:
    """The tokens that callers may bring. Raises ConfigurationError without one, or for one that is no bearer token."""
    found = [t.strip() for t in settings().gateway_tokens.get_secret_value().split(",") if t.strip()]
    if not found:
        raise ConfigurationError(
            "the gateway has no tokens",
            "set RESHELVE_GATEWAY_TOKENS to one or more, separated by commas",
        )
    for number, token in enumerate(found, 1):
        if not _TOKEN.fullmatch(token):
            raise ConfigurationError(
                f"RESHELVE_GATEWAY_TOKENS: token {number} is invalid",
                "expected 16 to 200 of the characters A-Z a-z 0-9 . _ ~ + / = -",
            )
    return tuple(found)


def _certificate(certificate: Path | None, key: Path | None, directory: Path) -> tuple[Path, Path]:
    if (certificate is None) != (key is None):
        raise ConfigurationError("--certificate and --key belong together", "give both, or none")
    if certificate is None or key is None:
        return self_signed(directory)
    for path in (certificate, key):
        if not path.is_file():
            raise ConfigurationError(f"{path}: no such file", "expected PEM")
    return certificate.absolute(), key.absolute()


def _stable(pointers: Pointers) -> list[Stable]:
    """What the gateway has to be able to ask for."""
    known = dict(pointers.known)
    return [(name, pointer.stable) for name, pointer in known.items() if pointer.stable is not None]


def _edge(gateway: Gateway) -> Nginx:
    return Nginx(gateway.edge_configuration, gateway.edge_pid, gateway.empty)


def _follow(
    gateway: Gateway,
    pointers: Pointers,
    looked: threading.Event,
    counter: Counter,
    stop: threading.Event,
    every: float,
) -> None:
    """Look, write, read again and report until told to stop."""
    edge = _edge(gateway)
    inner = Nginx(
        gateway.inner_configuration, gateway.inner_pid, gateway.empty, (gateway.first, gateway.again)
    )
    told = 0
    try:
        while not stop.is_set():
            pointers.refresh()
            if pointers.away is None:
                looked.set()
            # Restarted while S3 is away: what nginx has is better than knowing no ranker.
            blind = pointers.away is not None and not pointers.known and inner.pid() is not None
            if not blind:
                inner.follow(gateway_inner.render(gateway, pointers.known))
            edge.follow(gateway_edge.render(gateway))  # after the inner one: it may be asked at once
            told = _report(pointers, counter, told)
            stop.wait(every)
    finally:
        edge.stop()
        inner.stop()
        _report(pointers, counter, told)


def _report(pointers: Pointers, counter: Counter, told: int) -> int:
    """Write the counts where there are new ones; the number of requests told."""
    seen = counter.seen
    if pointers.away is not None or seen == told:
        return told
    store: ObjectStore = pointers.store
    try:
        for ranker, meter in list(counter.meters.items()):
            write_traffic(store, ranker, meter.report())
    except (TryAgainError, ConfigurationError) as error:
        logger(part="gateway").warning("traffic is not reported", problem=error.headline)
        return told
    return seen
