"""The gateway for callers in other languages: nginx with TLS and tokens, whose weights follow the pointers.

This process writes the configurations of two nginx, has the inner one read again when a pointer moves, keeps the
admission processes up, and counts what the edge reports of each request, by version, as the client library does. All of
them live on when this process dies: the next one takes nginx over, and replaces admission without a refused caller.
"""

from __future__ import annotations

import datetime
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
from reshelve.gateway.admission_process import AdmissionProcess
from reshelve.gateway.certificate import digest_of, hosts_of, self_signed
from reshelve.gateway.configuration import Gateway
from reshelve.gateway.counts import Counter
from reshelve.gateway.nginx import Nginx
from reshelve.gateway.ready import Readiness, Stable
from reshelve.gateway.servers import Servers
from reshelve.gateway.token_verbs import tokens_path
from reshelve.gateway.tokens import Tokens, TokensFile, read_tokens
from reshelve.logs import logger
from reshelve.names import require_address
from reshelve.processes import only_one
from reshelve.protocol.pointers import Pointers
from reshelve.protocol.traffic import write_traffic
from reshelve.settings import settings
from reshelve.store.objects import ObjectStore, impatient_store
from reshelve.store.signatures import trust

PLAIN_TOKENS = "RESHELVE_GATEWAY_TOKENS"
"""Where tokens were once, in plain text."""
_HOST = re.compile(r"(?:\*\.)?[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\]")
_EXPIRES_SOON = datetime.timedelta(days=30)
_START_SECONDS = 5.0  # that the pointers wait for admission to start again
_LONGEST_SOCKET_PATH = 100  # of 107 bytes that the kernel takes


def run_gateway(
    listen: str,
    servers: Sequence[str],
    certificate: Path | None,
    key: Path | None,
    hosts: Sequence[str],
    per_address: int,
    timeout: float,
    every: float,
) -> None:
    """Run until SIGTERM or SIGINT; nginx finishes its requests and stops with it.

    Raises ConfigurationError without nginx, trusted key or a whole certificate, for tokens in plain text, and for what cannot be used in nginx's configuration; AlreadyRunningError where another gateway keeps the home.
    """
    if shutil.which("nginx") is None:
        raise ConfigurationError("nginx is not installed", "Debian: apt-get install nginx-light")
    gateway = configured(listen, servers, certificate, key, hosts, per_address, timeout)
    trust()  # without a trusted key nothing would be followed: say so now
    if os.geteuid() == 0:
        logger(part="gateway").warning("nginx runs as root: run the gateway as its own user")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    pointers, looked = Pointers(impatient_store(), settings().home / "followed"), threading.Event()
    with only_one(gateway.directory / ".gateway.lock", "gateway"):
        if _edge(gateway).pid() is None:
            gateway.ready.unlink(missing_ok=True)
        with (
            Counter(gateway.counts) as counter,
            Readiness(gateway.ready, gateway.servers, lambda: _wanted(pointers) if looked.is_set() else None),
            Servers(gateway.servers) as answering,
        ):
            _follow(gateway, pointers, looked, counter, answering, stop, every)


def configured(
    listen: str,
    servers: Sequence[str],
    certificate: Path | None,
    key: Path | None,
    hosts: Sequence[str],
    per_address: int,
    timeout: float,
) -> Gateway:
    """What a person asked for, each part as it may stand in nginx's configuration. Makes the gateway's directory.

    Raises ConfigurationError naming the part that may not.
    """
    directory = settings().home / "gateway"
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)
    asked = tuple(servers) or (settings().model_server_rest,)
    pair = _certificate(certificate, key, directory)
    gateway = Gateway(
        require_address(listen, "--listen"),
        tuple(require_address(server, "--server") for server in asked),
        *pair,
        _hosts(hosts, pair[0]),
        per_address,
        _tokens(),
        timeout,
        directory,
    )
    gateway.empty.mkdir(exist_ok=True)
    if any(gateway.empty.iterdir()):
        raise ConfigurationError(f"{gateway.empty} is not empty", "expected a directory that holds nothing")
    sockets = (gateway.counts, gateway.first, gateway.again, *gateway.admissions)
    longest = max(sockets, key=lambda path: len(os.fsencode(path)))
    if len(os.fsencode(longest)) > _LONGEST_SOCKET_PATH:
        raise ConfigurationError(f"{longest}: too long for a socket", "set RESHELVE_HOME to a shorter path")
    gateway_edge.render(gateway)  # its paths are checked before anything is started
    return gateway


def _hosts(asked: Sequence[str], certificate: Path) -> tuple[str, ...]:
    """What callers may write as Host: what was asked for, else what the certificate is for. Raises ConfigurationError."""
    hosts = tuple(asked) or hosts_of(certificate)
    if not hosts:
        raise ConfigurationError(
            f"{certificate}: it names no host", "name those that callers ask for by --host"
        )
    for host in hosts:
        if _HOST.fullmatch(host) is None:
            raise ConfigurationError(
                f"--host: {host[:60]!r} is not a host",
                "expected a name, *.NAME, an address or [IPV6], without a port",
            )
    return tuple(dict.fromkeys(host.lower() for host in hosts))


def _tokens() -> Path:
    """The file of tokens, which may hold none yet. Raises ConfigurationError for one that cannot be read, and for tokens in plain text."""
    if os.environ.get(PLAIN_TOKENS):
        raise ConfigurationError(
            f"{PLAIN_TOKENS}: tokens are no longer taken from the environment",
            "make one: reshelve tokens make NAME. To keep one that callers have (32 characters or more): "
            "echo TOKEN | reshelve tokens make NAME --given. Then unset the variable.",
        )
    path = tokens_path().absolute()
    if not read_tokens(path).tokens:
        logger(part="gateway").warning(
            "no tokens yet, every caller is refused: reshelve tokens make NAME", file=str(path)
        )
    return path


def _certificate(certificate: Path | None, key: Path | None, directory: Path) -> tuple[Path, Path]:
    if (certificate is None) != (key is None):
        raise ConfigurationError("--certificate and --key belong together", "give both, or none")
    if certificate is None or key is None:
        return self_signed(directory)
    for path in (certificate, key):
        if not path.is_file():
            raise ConfigurationError(f"{path}: no such file", "expected PEM")
    return certificate.absolute(), key.absolute()


def _wanted(pointers: Pointers) -> list[Stable] | None:
    """What the gateway has to be able to ask for; None where it is not known."""
    if _believes_nothing(pointers):
        return None
    known = dict(pointers.known)
    return [(name, pointer.stable) for name, pointer in known.items() if pointer.stable is not None]


def _believes_nothing(pointers: Pointers) -> bool:
    """Whether rankers are deployed, and none of their logs verifies: what should serve is not known."""
    return bool(pointers.damaged) and not pointers.known


def _edge(gateway: Gateway) -> Nginx:
    return Nginx(gateway.edge_configuration, gateway.edge_pid, gateway.empty)


def _follow(
    gateway: Gateway,
    pointers: Pointers,
    looked: threading.Event,
    counter: Counter,
    answering: Servers,
    stop: threading.Event,
    every: float,
) -> None:
    """Look, write, read again and report until told to stop."""
    edge = _edge(gateway)
    inner = Nginx(
        gateway.inner_configuration, gateway.inner_pid, gateway.empty, (gateway.first, gateway.again)
    )
    admissions = [AdmissionProcess(socket, gateway.tokens) for socket in gateway.admissions]
    tokens = TokensFile(gateway.tokens)
    told, warned, pair = 0, datetime.date.min, ""
    for admission in admissions:
        admission.follow()
    try:
        while not stop.is_set():
            pointers.refresh()
            if pointers.away is None:
                looked.set()
            # Restarted while S3 is away, or no log is believed: what nginx has is better than knowing no ranker.
            blind = _believes_nothing(pointers) or (pointers.away is not None and not pointers.known)
            if not blind or inner.pid() is None:
                inner.follow(gateway_inner.render(gateway, pointers.known, answering.silent()))
            _keep_up(admissions)
            # After those that it asks.
            pair = _pair(gateway, pair)
            edge.follow(gateway_edge.render(gateway, tokens.current().tokens, pair))
            warned = _warn_of_ends(tokens.current(), warned)
            told = _report(pointers, counter, told)
            stop.wait(every)
    finally:
        edge.stop()
        for admission in admissions:
            admission.stop()
        inner.stop()
        _report(pointers, counter, told)


def _pair(gateway: Gateway, before: str) -> str:
    """The digest of certificate and key; the one before where they cannot be read, as while they are renewed."""
    try:
        return digest_of(gateway.certificate, gateway.key)
    except OSError as error:
        logger(part="gateway").error("the certificate stays as it was", problem=str(error))
        return before


def _keep_up(admissions: Sequence[AdmissionProcess]) -> None:
    """Start again what ended; where that does not help, the other one answers alone, and the next look tries again."""
    for admission in admissions:
        try:
            admission.follow(_START_SECONDS)
        except TryAgainError as error:
            logger(part="gateway").error("admission does not start", problem=error.headline)


def _warn_of_ends(tokens: Tokens, warned: datetime.date) -> datetime.date:
    """Tell once a day which tokens end within 30 days; the day on which that was last done."""
    now = datetime.datetime.now(datetime.UTC)
    if warned == now.date():
        return warned
    for token in tokens.tokens:
        if token.expires is not None and token.expires - now < _EXPIRES_SOON:
            logger(part="gateway").warning(
                "a token ends soon, or has", token=token.name, expires=token.expires.isoformat()
            )
    return now.date()


def _report(pointers: Pointers, counter: Counter, told: int) -> int:
    """Write the counts where there are new ones; the number of requests told."""
    seen = counter.seen
    if pointers.away is not None or seen == told:
        return told
    store: ObjectStore = pointers.store
    try:
        for (ranker, _), meter in list(counter.meters.items()):
            write_traffic(store, ranker, meter.report())
    except (TryAgainError, ConfigurationError) as error:
        logger(part="gateway").warning("traffic is not reported", problem=error.headline)
        return told
    return seen
