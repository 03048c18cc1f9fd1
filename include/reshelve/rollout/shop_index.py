"""Which version the shop's own search engine has in its index: asked over HTTP, until it is the one being released.

    GET release.index.url → 200 {"version": "20110831001"}

The address is of the ranker file, and the answer of a stranger: no redirect is followed, no more than a few bytes are read, and of
what it says only a version's number is ever repeated.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from reshelve.names import version_of
from reshelve.store.json_documents import json_value

ASK_SECONDS = 5.0
"""Between two questions."""

_WHOLE, _PIECE = 10.0, 10.0  # seconds for one answer, and without a byte of it
_LONGEST = 4096  # bytes of it
_ASKED = {"Accept": "application/json", "Accept-Encoding": "identity"}  # a few packed bytes can be very many


@dataclass(frozen=True)
class IndexAnswer:
    """The version that the index holds, or in words why that is not known."""

    version: int | None
    problem: str = ""

    @property
    def words(self) -> str:
        """For people."""
        return self.problem or f"holds version {self.version}"


def ask_index(url: str) -> IndexAnswer:
    """One question; takes at most some 20 seconds, however slowly head or body come."""
    with (
        httpx.Client(timeout=_PIECE, follow_redirects=False) as client,
        ThreadPoolExecutor(1, "shop index") as asker,
    ):
        asked = asker.submit(_ask, client, url)
        try:
            return asked.result(_WHOLE)
        except TimeoutError:
            client.close()  # its next byte ends it, or that it waits for one
            return IndexAnswer(None, f"takes more than {_WHOLE:g} s to answer")


def _ask(client: httpx.Client, url: str) -> IndexAnswer:
    body = b""
    try:
        with client.stream("GET", url, headers=_ASKED) as answer:
            if answer.status_code != httpx.codes.OK:
                return IndexAnswer(None, f"answers with status {answer.status_code}")
            for piece in answer.iter_raw():
                body += piece
                if len(body) > _LONGEST:
                    return IndexAnswer(None, f"answers with more than {_LONGEST} bytes")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return IndexAnswer(None, f"cannot be asked ({type(error).__name__})")
    return _read(body)


def wait_for_index(url: str, version: int, seconds: float, goes_on: Callable[[], bool]) -> IndexAnswer:
    """The last answer: of the index with that version, or what it said when `seconds` were over or `goes_on` said no."""
    until = time.monotonic() + seconds
    while True:
        answer = ask_index(url)
        left = until - time.monotonic()
        if answer.version == version or left <= 0 or not goes_on():
            return answer
        time.sleep(min(ASK_SECONDS, left))


def place_of(url: str) -> str:
    """Host and port: what may be written down of an address."""
    return urlsplit(url).netloc.rpartition("@")[2]


def _read(body: bytes) -> IndexAnswer:
    expected = 'expected {"version": "<number of a version>"}'
    try:
        document = json_value(body)
    except ValueError:
        return IndexAnswer(None, f"answers with no JSON: {expected}")
    said = document.get("version") if isinstance(document, dict) else None
    version = version_of(str(said)) if isinstance(said, (str, int)) and not isinstance(said, bool) else None
    return IndexAnswer(version, "" if version else f"names no version: {expected}")
