"""Whether the gateway may be sent callers: a file that nginx looks at when it is asked for `/health`."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

from reshelve.logs import logger
from reshelve.store.json_documents import json_value

_PATIENCE = 1.0  # seconds for one server's answer
_EVERY = 1.0
_AVAILABLE = "AVAILABLE"

Stable = tuple[str, int]


class Readiness:
    """A thread that asks the model servers which stable versions they have. Use it in a `with`.

    At first not ready: every stable version has to be AVAILABLE at one server or more. From then on ready as long as
    one ranker's is: a single ranker in trouble must not take the others from their callers. Where nothing was released
    yet, nothing is waited for.
    """

    def __init__(self, path: Path, servers: Sequence[str], wanted: Callable[[], list[Stable] | None]) -> None:
        """`wanted`: ranker and version of what is stable; None before the store could be read."""
        self._path, self._servers, self._wanted = path, servers, wanted
        self._begun = path.exists()  # a gateway that died left it so, and nginx lives on
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="readiness", daemon=True)

    def __enter__(self) -> Readiness:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """The file stays as it is: nginx may live on, and then it goes by what was seen last."""
        self._stop.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.look()
            self._stop.wait(_EVERY)

    def look(self) -> None:
        """Ask once, and say so by the file."""
        wanted = self._wanted()
        answering = [one for one in wanted or () if any(is_available(s, *one) for s in self._servers)]
        if wanted is None:
            ready = self._path.exists()  # S3 is away: as it was
        elif self._begun:
            ready = bool(answering) or not wanted
        else:
            ready = self._begun = len(answering) == len(wanted)
        if ready != self._path.exists():
            logger(part="gateway").info("ready" if ready else "not ready: no stable version answers")
            self._path.touch(0o600) if ready else self._path.unlink(missing_ok=True)


def is_available(server: str, ranker: str, version: int) -> bool:
    """Whether a model server has a version loaded, by its REST API."""
    url = f"http://{server}/v1/models/{ranker}/versions/{version}"
    try:
        with urllib.request.urlopen(url, timeout=_PATIENCE) as answer:
            found = json_value(answer.read(65536))["model_version_status"]
            return any(one["state"] == _AVAILABLE and int(one["version"]) == version for one in found)
    except (OSError, ValueError, KeyError, TypeError, urllib.error.URLError):
        return False
