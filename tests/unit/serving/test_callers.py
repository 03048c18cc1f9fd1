"""Callers of real model servers that are busy, killed, starting or without a version; the pointers are real, agents are not there.

What is asked goes by address alone: `served` is the only place that starts a server.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from tests.planted import build_graphs

from reshelve.client.client import (
    NothingServesError,
    RankingClient,
    RequestRefusedError,
    ServerAwayError,
    serves,
)
from reshelve.client.routing import Caller
from reshelve.config.ranker import Ranker
from reshelve.deployments.deployment_log import Advance, Offer, Pointer, Revert, move_pointer
from reshelve.deployments.release_table import Event, Plan, ReleaseState
from reshelve.errors import ReshelveError, TryAgainError
from reshelve.processes import free_port, wait_until
from reshelve.protocol.model_config import ModelEntry, write_config
from reshelve.protocol.traffic import Counts
from reshelve.protocol.version_items import Item
from reshelve.rollout.canary_analysis import StepOutcome
from reshelve.rollout.probe import ProbeQuestions, probe
from reshelve.rollout.recorded import Recorded
from reshelve.rollout.shadow import shadow
from reshelve.store.objects import ObjectStore

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

THREADS = 3
ONE, TWO = 20110830001, 20110831001
QUESTIONS = ProbeQuestions([Item(f"i{n}", f"title {n}", 9 - n) for n in range(5)])
FINE, FAILS = {"history": ["title 1"]}, {"history": ["title 1 ; customer 5"]}


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`good`; `failing` and `slow` on what a customer asks."""
    return build_graphs(tmp_path_factory.mktemp("graphs"))


Serve = Callable[..., Any]


@pytest.fixture
def served(host: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """`served({version: graph}, **labels)`: a host with those versions loaded, and few threads."""
    monkeypatch.setenv("RESHELVE_SERVING_GRPC_MAX_THREADS", str(THREADS))
    monkeypatch.setenv("RESHELVE_SERVING_TENSORFLOW_INTRA_OP_PARALLELISM", "1")
    others = 0

    def serve(versions: dict[int, Path], **labels: int) -> Any:
        nonlocal others
        made = host
        if others:
            models = tmp_path / f"models{others}"
            models.mkdir()
            made = type(host)(models, f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}", host.logs)
            made.started = host.started  # stopped with them
        others += 1
        for version, graph in versions.items():
            shutil.copytree(graph, made.models / "recommend" / str(version))
        list_versions(made, versions, **labels)
        made.start_server()
        return made

    return serve


def list_versions(host: Any, versions: Sequence[int] | dict[int, Path], **labels: int) -> None:
    """What the server has when it starts."""
    entry = ModelEntry("recommend", host.models / "recommend", frozenset(versions), labels)
    write_config(host.models, [entry])


@pytest.fixture
def two_versions(store: ObjectStore, publish: Any, make_stable: Any) -> Pointer:
    """The pointer: stable is the second, previous the first."""
    assert (publish(date(2011, 8, 30), "no_model"), publish(date(2011, 8, 31), "no_model")) == (ONE, TWO)
    make_stable(store, "recommend", ONE)
    return make_stable(store, "recommend", TWO)


@dataclass
class Customers:
    """Threads that ask until they are stopped, each `think` seconds after an answer: whoever waits has a chance too."""

    caller: Caller
    inputs: dict[str, list[str]]
    timeout: float = 60.0
    think: float = 0.0
    versions: list[int] = field(default_factory=list)
    failed: list[ReshelveError] = field(default_factory=list)

    @contextlib.contextmanager
    def asking(self, number: int) -> Iterator[Customers]:
        stop = threading.Event()

        def ask() -> None:
            while not stop.wait(self.think):
                try:
                    answer = self.caller.predict(self.inputs, session="s", timeout=self.timeout)
                    self.versions.append(answer.version)
                except ReshelveError as error:
                    self.failed.append(error)

        threads = [threading.Thread(target=ask) for _ in range(number)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def wait_for(self, more: int) -> None:
        """So many more answers."""
        wanted = len(self.versions) + more
        wait_until(lambda: len(self.versions) >= wanted or bool(self.failed), 120, f"{more} answers")


def counted(caller: Caller) -> dict[int, Counts]:
    """Version → what the caller counted, whatever move of the pointer it knew."""
    found: dict[int, Counts] = {}
    for by_version in caller.meter.report().counts.values():
        for version, counts in by_version.items():
            found[version] = found.get(version, Counts()).plus(counts)
    return found


def test_a_busy_server_fails_nobody_and_its_refusals_are_counted(
    store: ObjectStore, two_versions: Pointer, served: Serve, graphs: dict[str, Path], ranker: Ranker
) -> None:
    host = served({ONE: graphs["good"], TWO: graphs["slow"]}, stable=TWO)
    with Caller("recommend", [host.grpc], store, every=0.2) as caller:
        customers = Customers(caller, FAILS, timeout=240, think=0.05)
        with customers.asking(4 * THREADS):
            customers.wait_for(40)
            with RankingClient(host.grpc) as client:
                answers = [client.predict("recommend", FINE, version=ONE, timeout=240) for _ in range(5)]
            assert serves(host.grpc, "recommend", TWO, timeout=240)
            assert caller.ready(timeout=240)
        with customers.asking(THREADS):
            # A probe and a shadow meet the same server, and find nothing against the version.
            assert probe(ranker, TWO, host.grpc, QUESTIONS, timeout=240).problem is None
            rules = ranker.with_values({"release.shadow": {"requests": 20}, "release.max_latency_ratio": 50})
            recorded = [Recorded("serving_default", {"history": np.array(["title 1"])})]
            assert shadow(rules, ONE, TWO, [host.grpc], recorded).verdict is StepOutcome.PROMOTE
    assert customers.failed == []
    found = counted(caller)[TWO]
    assert found.refusals > 0 and sum(answer.refusals for answer in answers) > 0
    assert found.failed == 0 and found.requests == len(customers.versions)


def test_a_server_that_is_killed_fails_nobody_while_another_serves(
    store: ObjectStore, two_versions: Pointer, served: Serve, graphs: dict[str, Path]
) -> None:
    versions = {ONE: graphs["good"], TWO: graphs["good"]}
    first, second = served(versions, stable=TWO), served(versions, stable=TWO)
    with (
        Caller("recommend", [first.grpc, second.grpc], store) as caller,
        Customers(caller, FINE, timeout=20).asking(6) as customers,
    ):
        for _ in range(2):
            customers.wait_for(50)
            first.kill(_pid(first))
            customers.wait_for(200)
            first.start_server()
            customers.wait_for(50)
    assert customers.failed == [] and set(customers.versions) == {TWO}
    assert counted(caller)[TWO].failed == 0


def _pid(host: Any) -> int:
    """The newest process whose command names this host's address."""
    for pid in reversed(host.started):
        command = Path(f"/proc/{pid}/cmdline")
        if command.exists() and host.grpc in command.read_text():
            return int(pid)
    raise AssertionError(f"nothing serves {host.grpc}")


def test_the_only_server_is_waited_for_until_the_deadline(
    store: ObjectStore, two_versions: Pointer, served: Serve, graphs: dict[str, Path], ranker: Ranker
) -> None:
    host = served({ONE: graphs["good"], TWO: graphs["good"]}, stable=TWO)
    with (
        Caller("recommend", [host.grpc], store) as caller,
        Customers(caller, FINE, timeout=200).asking(3) as customers,
    ):
        customers.wait_for(20)
        host.kill(_pid(host))
        assert not serves(host.grpc, "recommend", TWO, timeout=1)
        with ThreadPoolExecutor(1) as pool:
            probed = pool.submit(probe, ranker, TWO, host.grpc, QUESTIONS, timeout=200)
            host.start_server()
            assert probed.result().problem is None
        customers.wait_for(20)
    assert customers.failed == []
    host.kill(_pid(host))
    with RankingClient(host.grpc) as client, pytest.raises(ServerAwayError, match=host.grpc):
        client.predict("recommend", FINE, timeout=1)


def test_a_port_that_is_open_and_says_nothing_is_a_server_that_is_away(
    store: ObjectStore, two_versions: Pointer, served: Serve, graphs: dict[str, Path]
) -> None:
    host = served({ONE: graphs["good"], TWO: graphs["good"]}, stable=TWO)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with Caller("recommend", [host.grpc, address], store) as caller:
            assert {caller.predict(FINE, session="s", timeout=15).version for _ in range(6)} == {TWO}


def test_a_moved_pointer_is_followed_without_an_agent(
    store: ObjectStore, two_versions: Pointer, served: Serve, graphs: dict[str, Path]
) -> None:
    """The labels stay where they were: nobody tells the server anything."""
    host = served({ONE: graphs["good"], TWO: graphs["good"]}, stable=TWO, canary=TWO)

    def answers(caller: Caller) -> int:
        return caller.predict(FINE, session="s", timeout=10).version

    with Caller("recommend", [host.grpc], store, every=0.2) as caller:
        assert answers(caller) == TWO and caller.ready()
        move_pointer(store, "recommend", Revert(ONE), by="test", reason="customers complain")
        wait_until(lambda: answers(caller) == ONE, 10, "the version before")
        move_pointer(store, "recommend", Revert(TWO), by="test", reason="they were wrong")
        wait_until(lambda: answers(caller) == TWO, 10, "the newer version")
        with RankingClient(host.grpc) as client:
            assert client.predict("recommend", FINE).version == TWO, "a label moved"
    assert all(counts.failed == 0 for counts in counted(caller).values())


@pytest.mark.parametrize(
    ("has", "labels", "expected"),
    [
        pytest.param([ONE, TWO], {}, TWO, id="no label is needed"),
        pytest.param([ONE], {"stable": ONE}, ONE, id="not loaded yet: what the label is on"),
        pytest.param([ONE], {}, ONE, id="and no label: the version before"),
    ],
)
def test_what_is_asked_where_a_version_is_missing(
    store: ObjectStore, two_versions: Pointer, served: Serve, graphs: dict[str, Path],
    has: list[int], labels: dict[str, int], expected: int,
) -> None:  # fmt: skip
    host = served(dict.fromkeys(has, graphs["good"]), **labels)
    with Caller("recommend", [host.grpc], store) as caller:
        assert caller.predict(FINE, session="s", timeout=10).version == expected
        assert caller.ready() is (TWO in has)
    assert {v: c.requests for v, c in counted(caller).items()} == {expected: 1}, "counted is what answered"
    for version in (ONE, TWO):
        assert serves(host.grpc, "recommend", version) is (version in has)
    assert serves(host.grpc, "recommend", label="stable") is ("stable" in labels)
    with Caller("recommend", [host.grpc]) as blind:  # S3 was never seen: the label is all there is
        if labels:
            assert blind.predict(FINE, session="s", timeout=10).version == labels["stable"]
        else:
            with pytest.raises(NothingServesError):
                blind.predict(FINE, session="s", timeout=0.5)


def canary(store: ObjectStore, version: int) -> None:
    """Every second session gets it."""

    def on(event: Event, state: ReleaseState) -> None:
        move_pointer(store, "recommend", Advance(version, event, state), by="test", reason="")

    move_pointer(store, "recommend", Offer(version, Plan(shares=(0.5,))), by="test", reason="")
    on(Event.LOADED, ReleaseState.LOADING)
    on(Event.PROBED, ReleaseState.PROBING)


def test_whose_error_a_rejected_request_is(
    store: ObjectStore, publish: Any, make_stable: Any, served: Serve, graphs: dict[str, Path]
) -> None:
    """What the canary rejects and the stable version answers is the canary's failure; what both reject is the caller's."""
    assert (publish(date(2011, 8, 30), "no_model"), publish(date(2011, 8, 31), "no_model")) == (ONE, TWO)
    make_stable(store, "recommend", ONE)
    canary(store, TWO)
    host = served({ONE: graphs["good"], TWO: graphs["failing"]}, stable=ONE, canary=TWO)
    with Caller("recommend", [host.grpc], store) as caller:
        for number in range(30):
            assert caller.predict(FAILS, session=str(number), timeout=10).version == ONE
        at_first = counted(caller)
        for number in range(30):
            with pytest.raises(RequestRefusedError):
                caller.predict({"histori": ["x"]}, session=str(number), timeout=10)
        found = counted(caller)
    asked = at_first[TWO].requests
    assert 0 < asked < 30 and at_first[TWO].errors == {"RequestRefusedError": asked}
    assert (at_first[ONE].requests, at_first[ONE].errors, at_first[ONE].rejected) == (30, {}, {})
    assert found[TWO].errors == at_first[TWO].errors, "the callers' errors are not the canary's"
    assert found[TWO].rejected == {"RequestRefusedError": asked}
    assert (found[ONE].errors, found[ONE].rejected) == ({}, {"RequestRefusedError": 30})


def test_a_stable_version_that_fails_is_told_from_a_wrong_request_by_the_one_before(
    store: ObjectStore, two_versions: Pointer, served: Serve, graphs: dict[str, Path]
) -> None:
    host = served({ONE: graphs["good"], TWO: graphs["failing"]}, stable=TWO)
    with Caller("recommend", [host.grpc], store) as caller:
        for _ in range(5):
            assert caller.predict(FAILS, session="s", timeout=10).version == ONE
            with pytest.raises(RequestRefusedError):
                caller.predict({"histori": ["x"]}, session="s", timeout=10)
        assert caller.predict(FINE, session="s", timeout=10).version == TWO
    found = counted(caller)
    assert found[TWO].errors == {"RequestRefusedError": 5} and found[TWO].rejected == {
        "RequestRefusedError": 5
    }
    assert ONE not in found, "it was asked for its opinion"


def test_a_label_that_comes_a_moment_late_is_waited_for(
    store: ObjectStore, two_versions: Pointer, served: Serve, graphs: dict[str, Path]
) -> None:
    """Right after its start a server may not know its labels."""
    from reshelve.agent.admin import ServerAdmin

    host = served({ONE: graphs["good"], TWO: graphs["good"]})
    admin = ServerAdmin(host.grpc)
    entry = ModelEntry("recommend", host.models / "recommend", frozenset({ONE, TWO}), {"stable": TWO})
    with Caller("recommend", [host.grpc]) as blind, Customers(blind, FINE).asking(2) as customers:
        assert not serves(host.grpc, "recommend", label="stable"), "the label already exists"
        admin.reload([entry])
        customers.wait_for(10)
    admin.close()
    assert customers.failed == [] and set(customers.versions) == {TWO}


def test_an_absent_server_is_no_answer_about_a_version(ranker: Ranker) -> None:
    with pytest.raises(TryAgainError):
        probe(ranker, ONE, f"127.0.0.1:{free_port()}", QUESTIONS, timeout=1)


def test_a_store_that_refuses_is_looked_at_again(
    store: ObjectStore,
    s3_environment: dict[str, str],
    publish: Any,
    make_stable: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A bucket that is not there is a wrong configuration to a person, and a pointer not read yet to a caller."""
    s3 = boto3.client(
        "s3",
        endpoint_url=s3_environment["AWS_ENDPOINT_URL"],
        aws_access_key_id=s3_environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=s3_environment["AWS_SECRET_ACCESS_KEY"],
        region_name=s3_environment["AWS_DEFAULT_REGION"],
    )
    s3.delete_bucket(Bucket=store.bucket)
    looks, look = [], store.get_if_changed

    def counted_look(key: str, tag: str | None) -> Any:
        looks.append(key)
        return look(key, tag)

    monkeypatch.setattr(store, "get_if_changed", counted_look)
    with Caller("recommend", [f"127.0.0.1:{free_port()}"], store, every=0.05) as caller:
        wait_until(lambda: len(looks) >= 3, 20, "the caller to look again")
        assert caller.pointer is None
        store.create_bucket()
        one = publish(date(2011, 8, 30), "no_model")
        make_stable(store, "recommend", one)
        wait_until(lambda: caller.pointer is not None and caller.pointer.stable == one, 20, "the pointer")
