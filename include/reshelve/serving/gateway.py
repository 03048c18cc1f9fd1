"""The gateway for callers in other languages: nginx with TLS and a token, whose weights follow the pointers.

This process writes nginx's configuration, has it read again when a pointer moves, and counts what nginx reports of each
request, by version, as the client library does. nginx lives on when this process dies: the next one takes it over.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

from reshelve.errors import ConfigurationError, TryAgainError
from reshelve.logs import logger
from reshelve.processes import only_one, start, wait_until
from reshelve.serving.certificate import self_signed
from reshelve.serving.gateway_config import Gateway, attempts, render
from reshelve.serving.pointers import Pointers
from reshelve.serving.traffic import Meter, write_traffic
from reshelve.settings import settings
from reshelve.store.objects import ObjectStore, impatient_store

_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{16,200}")
_LONGEST_SOCKET_PATH = 100  # of 107 bytes that the kernel takes
_START_SECONDS = 10.0
_STOP_SECONDS = 10.0


def run_gateway(
    listen: str,
    servers: Sequence[str],
    certificate: Path | None,
    key: Path | None,
    timeout: float,
    every: float,
) -> None:
    """Run until SIGTERM or SIGINT; nginx finishes its requests and stops with it.

    Raises ConfigurationError without nginx, token or a whole certificate, AlreadyRunningError where another gateway keeps the home.
    """
    if shutil.which("nginx") is None:
        raise ConfigurationError("nginx is not installed", "Debian: apt-get install nginx-light")
    directory = settings().home / "gateway"
    directory.mkdir(parents=True, exist_ok=True)
    gateway = Gateway(
        listen,
        tuple(servers) or (settings().model_server_rest,),
        *_certificate(certificate, key, directory),
        tokens(),
        timeout,
        directory,
    )
    if len(os.fsencode(gateway.socket)) > _LONGEST_SOCKET_PATH:
        raise ConfigurationError(
            f"{gateway.socket}: too long for a socket", "set RESHELVE_HOME to a shorter path"
        )
    if os.geteuid() == 0:
        logger(part="gateway").warning("nginx runs as root: give the gateway a user of its own")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with only_one(directory / ".gateway.lock", "gateway"), _Counter(gateway.socket) as counter:
        _follow(gateway, impatient_store(), counter, stop, every)


def tokens() -> tuple[str, ...]:
    """The tokens that callers may bring. Raises ConfigurationError without one, or for one that is no bearer token."""
    found = [t.strip() for t in settings().gateway_tokens.get_secret_value().split(",") if t.strip()]
    if not found:
        raise ConfigurationError(
            "the gateway has no token to ask callers for",
            "set RESHELVE_GATEWAY_TOKENS to one or more, with commas between",
        )
    for number, token in enumerate(found, 1):
        if not _TOKEN.fullmatch(token):
            raise ConfigurationError(
                f"RESHELVE_GATEWAY_TOKENS: token {number} cannot be one",
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


def _follow(
    gateway: Gateway, store: ObjectStore, counter: _Counter, stop: threading.Event, every: float
) -> None:
    """Look, write, reload and report until told to stop."""
    pointers, nginx, written, told = Pointers(store), _Nginx(gateway), "", 0
    try:
        while not stop.is_set():
            pointers.refresh()
            wanted = render(gateway, pointers.known)
            # Restarted while S3 is away: what nginx has is better than knowing no ranker.
            blind = pointers.away is not None and not pointers.known and nginx.pid() is not None
            if (wanted != written and not blind) or nginx.pid() is None:
                _tell(nginx, wanted)
                written = wanted
            told = _report(store, pointers, counter, told)
            stop.wait(every)
    finally:
        nginx.stop()
        _report(store, pointers, counter, told)


def _tell(nginx: _Nginx, wanted: str) -> None:
    """Raises ConfigurationError where nginx refuses the very first configuration; later it serves on with the last good one."""
    try:
        nginx.apply(wanted)
    except ConfigurationError as error:
        if nginx.pid() is None:
            raise
        logger(part="gateway").error("nginx serves on as it was", problem=str(error))
        return
    logger(part="gateway").info("told nginx")


def _report(store: ObjectStore, pointers: Pointers, counter: _Counter, told: int) -> int:
    """Write the counts where there are new ones; the number of requests told."""
    seen = counter.seen
    if pointers.away is not None or seen == told:
        return told
    try:
        for ranker, meter in list(counter.meters.items()):
            write_traffic(store, ranker, meter.report())
    except (TryAgainError, ConfigurationError) as error:
        logger(part="gateway").warning("traffic is not reported", problem=error.headline)
        return told
    return seen


class _Nginx:
    """The master process of nginx, found by its pid file."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    def pid(self) -> int | None:
        """The master's process id while it lives."""
        try:
            pid = int(self.gateway.pid_file.read_text())
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        return pid if os.fsencode(self.gateway.configuration) in words else None

    def apply(self, text: str) -> None:
        """Have nginx serve by this configuration. Raises ConfigurationError, and changes nothing, where nginx refuses it."""
        fresh = self.gateway.configuration.with_suffix(".new")
        fresh.touch(mode=0o600)  # it holds the tokens
        fresh.write_text(text)
        checked = subprocess.run(
            [*self._command(fresh), "-t"], capture_output=True, text=True, timeout=30, check=False
        )
        if checked.returncode != 0:
            raise ConfigurationError("nginx refuses its configuration", checked.stderr[-2000:])
        fresh.replace(self.gateway.configuration)
        pid = self.pid()
        if pid is not None:
            os.kill(pid, signal.SIGHUP)
            return
        log = self.gateway.directory / "nginx.log"
        start(self._command(self.gateway.configuration), log)
        wait_until(lambda: self.pid() is not None, _START_SECONDS, f"nginx (its words: {log})")

    def stop(self) -> None:
        """Let requests under way be answered, then end it."""
        for number in (signal.SIGQUIT, signal.SIGTERM):
            pid = self.pid()
            if pid is None:
                return
            os.kill(pid, number)
            with contextlib.suppress(TryAgainError):  # SIGTERM comes after a patient SIGQUIT
                wait_until(lambda: self.pid() is None, _STOP_SECONDS, "the end of nginx")

    def _command(self, configuration: Path) -> list[str]:
        return ["nginx", "-p", str(self.gateway.directory), "-e", "stderr", "-c", str(configuration)]


class _Counter:
    """Counts what nginx reports, one datagram for each request, in a thread of its own. Use it in a `with`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.meters: dict[str, Meter] = {}
        self.seen = 0
        self._name = f"gateway-{os.uname().nodename}-{os.getpid()}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._thread = threading.Thread(target=self._listen, name="traffic", daemon=True)

    def __enter__(self) -> _Counter:
        self.path.unlink(missing_ok=True)
        self._socket.bind(str(self.path))
        self._socket.settimeout(0.5)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._thread.join(timeout=5)

    def _listen(self) -> None:
        while True:
            try:
                line = self._socket.recv(65536).decode(errors="replace")
            except TimeoutError:
                continue
            except OSError:  # closed
                return
            try:
                self.count(line[line.index("{") :])
            except (ValueError, KeyError) as error:
                logger(part="gateway").warning("nginx said something strange", problem=str(error))

    def count(self, line: str) -> None:
        """One request: `{"ranker", "sequence", "stable", "canary", "side", "status", "seconds"}`."""
        said = json.loads(line)
        meter = self.meters.setdefault(said["ranker"], Meter(self._name))
        versions = [
            said[said["side"]],
            said["stable"],
        ]  # what a first choice does not answer, the stable one does
        for version, (status, seconds) in zip(
            versions, attempts(said["status"], said["seconds"]), strict=False
        ):
            if status == "200":
                meter.add(said["sequence"], version, seconds * 1000)
            elif (
                status != "404"
            ):  # a version that is not there (yet, or any more) says that the pointer moved
                meter.add(said["sequence"], version, None, f"HTTP {status}")
        self.seen += 1
