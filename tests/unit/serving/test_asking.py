"""Which server is asked next, for which version, and when it ends: the loop by itself, servers that say what a test writes."""

from __future__ import annotations

import time
from collections.abc import Callable

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reshelve.client.asking import Answer, Target, VersionedRequest, ask
from reshelve.errors import ReshelveError
from reshelve.protocol.server_errors import (
    BusyError,
    NothingServesError,
    RequestRefusedError,
    ServerAwayError,
    TooSlowError,
    VersionFailedError,
    typed_error,
)

ANSWER = Answer(7, {"score": np.ones(1)})
Says = type[ReshelveError] | Answer


class Scripted:
    """Says one thing after the other, the last one for ever; remembers what it was asked for."""

    def __init__(self, *says: Says) -> None:
        self.says = list(says)
        self.asked: list[str] = []
        self.timeouts: list[float] = []

    def once(self, question: VersionedRequest, timeout: float) -> Answer:
        self.asked.append(str(question))
        self.timeouts.append(timeout)
        said = self.says.pop(0) if len(self.says) > 1 else self.says[0]
        if isinstance(said, Answer):
            return said
        raise said("as written")


class Absent(Scripted):
    """Has some versions and labels only."""

    def __init__(self, *has: str) -> None:
        super().__init__(ANSWER)
        self.has = has

    def once(self, question: VersionedRequest, timeout: float) -> Answer:
        answer = super().once(question, timeout)
        if str(question) not in self.has:
            raise NothingServesError("not here")
        return answer


def asked(
    *servers: Scripted,
    targets: tuple[Target, ...] = (Target(7),),
    timeout: float = 5.0,
    absence: float = 0.0,
    refused: Callable[[], None] = lambda: None,
) -> Answer:
    question = VersionedRequest("recommend", {"history": ["x"]}, "serving_default")
    return ask(servers, targets, question, timeout, absence=absence, refused=refused)


def test_a_busy_server_passes_the_question_on_and_is_not_asked_twice() -> None:
    refusals: list[None] = []
    busy, free = Scripted(BusyError), Scripted(ANSWER)
    assert asked(busy, free, refused=lambda: refusals.append(None)) is ANSWER
    assert (len(busy.asked), len(free.asked), len(refusals)) == (1, 1, 1)


@pytest.mark.parametrize("trouble", [BusyError, ServerAwayError])
def test_the_only_server_is_asked_again(trouble: type[ReshelveError]) -> None:
    server = Scripted(*[trouble] * 6, ANSWER)
    assert asked(server) is ANSWER
    assert len(server.asked) == 7


@pytest.mark.parametrize("trouble", [BusyError, ServerAwayError, NothingServesError])
def test_the_deadline_ends_it(trouble: type[ReshelveError]) -> None:
    server = Scripted(trouble)
    began = time.monotonic()
    with pytest.raises(trouble):
        asked(server, timeout=0.4, absence=9)
    assert time.monotonic() - began <= 0.5
    assert all(earlier >= later for earlier, later in zip(server.timeouts, server.timeouts[1:], strict=False))
    assert max(server.timeouts) <= 0.4


@pytest.mark.parametrize("final", [RequestRefusedError, TooSlowError])
def test_what_the_caller_did_wrong_is_never_asked_again(final: type[ReshelveError]) -> None:
    one, two = Scripted(final), Scripted(ANSWER)
    with pytest.raises(final):
        asked(one, two)
    assert (len(one.asked), len(two.asked)) == (1, 0)


def test_an_error_inside_a_server_is_asked_once_of_each() -> None:
    one, two = Scripted(VersionFailedError), Scripted(VersionFailedError)
    with pytest.raises(VersionFailedError):
        asked(one, two)
    assert (len(one.asked), len(two.asked)) == (1, 1)
    assert asked(Scripted(VersionFailedError), Scripted(ANSWER)) is ANSWER


def test_time_spent_on_refusals_is_no_slowness() -> None:
    class Late(Scripted):
        """Refuses for most of the time, then does not answer in what is left."""

        def once(self, question: VersionedRequest, timeout: float) -> Answer:
            if timeout > 0.2:
                time.sleep(timeout - 0.15)
                raise BusyError("full")
            raise TooSlowError("over")

    with pytest.raises(BusyError):
        asked(Late(ANSWER), timeout=0.4)


def test_another_target_is_for_where_no_server_has_the_first() -> None:
    targets = (Target(9), Target(), Target(8))
    both = Absent("recommend stable"), Absent("recommend 9", "recommend stable")
    asked(*both, targets=targets)
    assert [server.asked for server in both] == [["recommend 9"], ["recommend 9"]]
    neither = Absent("recommend 8"), Absent("recommend 8")
    asked(*neither, targets=targets)
    assert [len(server.asked) for server in neither] == [3, 2]
    away = Scripted(ServerAwayError)
    asked(away, Absent("recommend 8"), targets=targets)
    assert away.asked == ["recommend 9", "recommend stable", "recommend 8"]


def test_what_is_not_there_is_waited_for_only_where_that_is_asked() -> None:
    server = Scripted(NothingServesError)
    with pytest.raises(NothingServesError):
        asked(server, absence=0)
    assert len(server.asked) == 1
    assert asked(Scripted(*[NothingServesError] * 4, ANSWER), absence=5) is ANSWER


_TROUBLE = st.sampled_from([BusyError, ServerAwayError, NothingServesError])


@settings(deadline=None, max_examples=60)  # the machine may be busy
@given(st.lists(st.lists(_TROUBLE, max_size=4), min_size=1, max_size=3))
def test_an_answer_that_comes_is_found(scripts: list[list[type[ReshelveError]]]) -> None:
    """Whatever passes in whatever order: one server's answer is enough, and every refusal is told of."""
    refusals: list[None] = []
    servers = [Scripted(*script, ANSWER) for script in scripts]
    assert asked(*servers, absence=60, timeout=60, refused=lambda: refusals.append(None)) is ANSWER
    met = sum(
        said is BusyError
        for script, server in zip(scripts, servers, strict=True)
        for said in script[: len(server.asked)]
    )
    assert len(refusals) == met


class Status(grpc.RpcError):
    """What a server says, as gRPC gives it."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__()
        self._code, self._details = code, details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details


@pytest.mark.parametrize(
    ("code", "details", "expected"),
    [
        ("RESOURCE_EXHAUSTED", "Server Threadpool Exhausted", BusyError),
        ("RESOURCE_EXHAUSTED", "CLIENT: Received message larger than max (9 vs. 4)", RequestRefusedError),
        ("UNAVAILABLE", "failed to connect to all addresses", ServerAwayError),
        ("UNAVAILABLE", "Socket closed", ServerAwayError),
        ("INVALID_ARGUMENT", "Unrecognized servable version label: stable", NothingServesError),
        ("INVALID_ARGUMENT", "input size does not match signature: 2!=1", RequestRefusedError),
        ("NOT_FOUND", "Servable not found for request: Specific(m, 9)", NothingServesError),
        ("FAILED_PRECONDITION", 'Serving signature key "nosig" not found.', RequestRefusedError),
        ("FAILED_PRECONDITION", "Could not find variable dense/kernel.", VersionFailedError),
        ("INTERNAL", "an error", VersionFailedError),
        ("UNKNOWN", "an error", VersionFailedError),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", TooSlowError),
    ],
)
def test_whose_fault_an_answer_is(code: str, details: str, expected: type[ReshelveError]) -> None:
    error = typed_error(Status(getattr(grpc.StatusCode, code), details), "10.0.0.5:8500", "recommend 7")
    assert type(error) is expected
    assert "10.0.0.5:8500" in error.headline
