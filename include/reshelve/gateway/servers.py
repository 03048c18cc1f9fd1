"""Which model servers answer at all, asked by the gateway itself: no caller's request can make one look dead.

nginx counts a request that took too long as a failure of its server, whoever sent it. So it counts none (`max_fails=0`);
a server that is silent is asked last, until it answers again.
"""

from __future__ import annotations

import http.client
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence

from reshelve.logs import logger

_PATIENCE = 1.0  # seconds for an answer
_EVERY = 1.0
_SILENCES = 3  # in a row


class Servers:
    """A thread for each server, where there is more than one. Use it in a `with`."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._silences = dict.fromkeys(addresses, 0)
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._watch, args=(address,), name=f"server {address}", daemon=True)
            for address in (self._silences if len(self._silences) > 1 else ())
        ]

    def __enter__(self) -> Servers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=5)

    def silent(self) -> frozenset[str]:
        """Those that did not answer three times in a row; none where no server answers: then all are asked alike."""
        found = frozenset(one for one, silences in self._silences.items() if silences >= _SILENCES)
        return frozenset() if len(found) == len(self._silences) else found

    def _watch(self, address: str) -> None:
        while not self._stop.is_set():
            self.look(address)
            self._stop.wait(_EVERY)

    def look(self, address: str) -> None:
        """Ask one server once."""
        before = self._silences[address]
        self._silences[address] = 0 if answers(address) else before + 1
        if self._silences[address] == _SILENCES:
            logger(part="gateway").warning("a model server is silent: it is asked last", server=address)
        elif before >= _SILENCES and not self._silences[address]:
            logger(part="gateway").info("a model server answers again", server=address)


def answers(address: str) -> bool:
    """Whether a model server gives any answer over HTTP, be it an error."""
    try:
        with urllib.request.urlopen(f"http://{address}/v1/models", timeout=_PATIENCE):
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, http.client.HTTPException):
        return False
