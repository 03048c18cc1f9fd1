"""The wait for the shop's own index: what is believed of its answer, and how a release goes on when it has the version."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from reshelve.config.ranker import Ranker
from reshelve.config.rollout import Index
from reshelve.deployments.deployment_log import problems, read_log, read_pointer
from reshelve.deployments.release_table import Event, Plan, ReleasePosition, ReleaseState, follow
from reshelve.processes import free_port
from reshelve.rollout import shop_index
from reshelve.rollout.release import release
from reshelve.rollout.roll_back import rollback, withdraw
from reshelve.rollout.shop_index import IndexAnswer, ask_index, place_of, wait_for_index
from reshelve.store.objects import ObjectStore

VERSION = 20110831001


class Search:
    """A shop's search engine, as far as it is asked: what it answers, and how often it was."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.status, self.body, self.headers = 200, b"{}", {}
        self.slow = 0.0  # seconds between two bytes
        self.slow_head = False  # of the head too
        self.written = 0  # bytes of a slow answer
        self.asked: list[str] = []

    def holds(self, version: object) -> None:
        self.body = json.dumps({"version": version}).encode()


@contextmanager
def searching() -> Iterator[Search]:
    """One on a real port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append(self.path)
            if found.slow_head:
                self.drip(itertools.chain(b"HTTP/1.1 200 OK\r\nX-Long: ", itertools.repeat(ord("a"))))
                return
            self.send_response(found.status)
            self.send_header("Content-Length", str(len(found.body)))
            for name, value in found.headers.items():
                self.send_header(name, value)
            self.end_headers()
            if not found.slow:
                self.wfile.write(found.body)
                return
            self.drip(found.body)

        def drip(self, whole: Iterable[int]) -> None:
            for byte in whole:
                if over.wait(found.slow):
                    return
                try:
                    self.wfile.write(bytes([byte]))
                except OSError:  # it was asked by somebody who has left
                    return
                found.written += 1

        def log_message(self, *_: object) -> None:
            pass

    over = threading.Event()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Search(f"http://127.0.0.1:{server.server_port}/version")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield found
        finally:
            over.set()
            server.shutdown()
            thread.join()


@pytest.fixture
def search() -> Iterator[Search]:
    with searching() as found:
        yield found


@pytest.mark.parametrize("said", [VERSION, str(VERSION)], ids=["number", "text"])
def test_the_version_that_an_index_names_is_read(search: Search, said: object) -> None:
    search.holds(said)
    assert ask_index(search.url) == IndexAnswer(VERSION)
    assert ask_index(search.url).words == f"holds version {VERSION}"


SECRET = "an-inner-secret"
ODD: dict[str, tuple[int, bytes, str]] = {
    "no JSON": (200, b"<html>an-inner-secret", "answers with no JSON"),
    "no object": (200, b'["an-inner-secret"]', "names no version"),
    "no version": (200, b'{"version": "an-inner-secret"}', "names no version"),
    "a truth": (200, b'{"version": true}', "names no version"),
    "a fraction": (200, b'{"version": 1.5}', "names no version"),
    "bytes that are no text": (200, b"\xff\xfe\x00", "answers with no JSON"),
    "deep": (200, b"[" * 4000, "answers with no JSON"),
    "too much": (200, b" " * 5000, "more than 4096 bytes"),
    "an error": (503, b"an-inner-secret", "status 503"),
    "another place": (302, b"", "status 302"),
}


@pytest.mark.parametrize("odd", ODD)
def test_what_is_no_version_is_said_in_words_without_repeating_it(search: Search, odd: str) -> None:
    search.status, search.body, words = ODD[odd]
    search.headers = {"Location": f"{search.url}/elsewhere"}
    answer = ask_index(search.url)
    assert answer.version is None and words in answer.words and SECRET not in answer.words
    assert search.asked == ["/version"], "a redirect is not followed"


def test_an_index_that_is_away_cannot_be_asked() -> None:
    answer = ask_index(f"http://127.0.0.1:{free_port()}/version")
    assert answer.version is None and "cannot be asked" in answer.words


@pytest.mark.parametrize("head", [True, False], ids=["its head", "its body"])
def test_an_answer_that_drips_is_left(search: Search, monkeypatch: pytest.MonkeyPatch, head: bool) -> None:
    """Each byte comes in time, the whole never would."""
    monkeypatch.setattr(shop_index, "_WHOLE", 1.0)
    search.slow_head, search.slow, search.body = head, 0.05, b" " * 4000
    assert "to answer" in ask_index(search.url).words
    assert search.written < 1000, "it was not waited for"


def test_a_wait_ends_when_the_index_has_the_version(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shop_index, "ASK_SECONDS", 0.01)
    search.holds(20110830001)

    def goes_on() -> bool:
        if len(search.asked) == 3:
            search.holds(VERSION)
        return True

    assert wait_for_index(search.url, VERSION, 30, goes_on) == IndexAnswer(VERSION)
    assert len(search.asked) == 4


def test_a_wait_ends_with_its_time_and_with_its_release(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shop_index, "ASK_SECONDS", 0.01)
    search.holds(20110830001)
    assert wait_for_index(search.url, VERSION, 0.1, lambda: True) == IndexAnswer(20110830001)
    asked = len(search.asked)
    assert wait_for_index(search.url, VERSION, 30, lambda: False) == IndexAnswer(20110830001)
    assert len(search.asked) == asked + 1


def test_an_address_is_written_down_by_its_host() -> None:
    assert place_of("https://search.shop.example:8443/a?key=1") == "search.shop.example:8443"


def test_an_index_comes_after_the_shadow_and_before_customers() -> None:
    for shadow, shares, approval in itertools.product((False, True), ((), (0.1,)), (False, True)):
        plan = Plan(index=True, shadow=shadow, shares=shares, approval=approval)
        place: ReleasePosition | None = ReleasePosition(ReleaseState.PROBING)
        for event in (Event.PROBED, *((Event.AGREED,) if shadow else ())):
            assert place is not None
            place = follow(place, event, plan)
        assert place == ReleasePosition(ReleaseState.INDEXING)
        assert follow(place, Event.HOLD, plan) == place
        after = follow(place, Event.INDEXED, plan)
        expected = (
            ReleaseState.CANARY if shares else ReleaseState.APPROVAL if approval else ReleaseState.READY
        )
        assert after is not None and after.state is expected


def waiting(ranker: Ranker, url: str | None, minutes: float = 60.0) -> Ranker:
    """Of a kind that a real server of the tests answers as; a ranker file would need `head: titles`."""
    index = Index(url=url, minutes=minutes)
    return ranker.model_copy(update={"release": ranker.release.model_copy(update={"index": index})})


@pytest.mark.slow
def test_a_version_serves_when_the_shops_index_has_it(
    store: ObjectStore,
    publish: Callable[..., int],
    host: Any,
    ranker: Ranker,
    search: Search,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shop_index, "ASK_SECONDS", 0.05)
    one, two, three = (publish(day) for day in (date(2011, 8, 30), date(2011, 8, 31), date(2011, 9, 1)))
    host.start_agent()
    host.start_server()
    release(ranker, one, by="test")
    search.holds(one)
    held = release(waiting(ranker, search.url, 0.001), two, by="test")
    assert held["state"] == "held" and not held["awaits_approval"]
    assert f"holds version {one}; expected version {two} within 0.001 minutes" in held["headline"]
    pointer = read_pointer(store, "recommend")
    assert pointer is not None and (pointer.stable, pointer.canary, pointer.state) == (one, two, "indexing")
    assert pointer.plan.index and pointer.held and pointer.share == 0
    gone = release(waiting(ranker, None), two, by="test")
    assert gone["state"] == "held" and "no longer says release.index.url" in gone["headline"]

    search.holds(two)
    found = release(waiting(ranker, search.url), two, by="test")
    assert found["state"] == "promoted" and "index" in [step["step"] for step in found["steps"]]
    assert rollback(ranker.name, to=None, by="anna")["version"] == one, (
        "no index is waited for on the way back"
    )

    taken = threading.Thread(target=lambda: search.asked.clear() or withdraw_when_asked(search, ranker.name))
    taken.start()
    with pytest.raises(Exception, match="no longer being released"):
        release(waiting(ranker, search.url), three, by="test")
    taken.join()
    log = read_log(store, "recommend")
    assert problems(log) == []
    assert [entry.action for entry in log if entry.action == "indexed"] == ["indexed"]
    evidence = next(entry.evidence for entry in log if entry.action == "indexed")
    assert evidence["holds"] == two and evidence["index"] == place_of(search.url)


def withdraw_when_asked(search: Search, ranker: str) -> None:
    """Somebody takes the release back while it waits."""
    until = time.monotonic() + 60
    while not search.asked and time.monotonic() < until:
        time.sleep(0.02)
    withdraw(ranker, by="anna")
