"""Releases and rollbacks through real processes: S3, the model server, the agent, and what happens when they die."""

from __future__ import annotations

import itertools
import threading
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from reshelve.client.client import NothingServesError, RankingClient
from reshelve.client.routing import Caller
from reshelve.config.ranker import Ranker
from reshelve.console.status import status
from reshelve.deployments import freeze
from reshelve.deployments.deployment_log import Offer, move_pointer, problems, read_log, read_pointer
from reshelve.errors import ConfigurationError, DataError, TryAgainError
from reshelve.platform import seaweedfs
from reshelve.processes import free_port, stop_group, wait_until
from reshelve.protocol.reports import live_reports
from reshelve.rollout import fleet
from reshelve.rollout.release import approve, release
from reshelve.rollout.roll_back import rollback, withdraw
from reshelve.store import objects
from reshelve.store.objects import ObjectStore

FIRST, SECOND = date(2011, 8, 30), date(2011, 8, 31)


def serves(host: Any, label: str = "stable", ranker: str = "recommend") -> int | None:
    """The version that answers a real request, or None."""
    with RankingClient(host.grpc) as client:
        try:
            return client.predict(ranker, {"history": ["title 1"]}, label=label).version
        except TryAgainError:
            return None


def wait_for(host: Any, version: int, seconds: float = 60) -> None:
    wait_until(lambda: serves(host) == version, seconds, f"version {version} under the label stable")


@pytest.mark.slow
def test_release_then_rollback(store: ObjectStore, publish: Any, host: Any, ranker: Ranker) -> None:
    one, two = publish(FIRST), publish(SECOND)
    host.start_agent()
    host.start_server()
    released = release(ranker, one, by="test")
    assert released["state"] == "promoted"
    assert [step["step"] for step in released["steps"]] == [
        "check",
        "load beside",
        "probe",
        "promote",
        "serve",
    ]
    assert serves(host) == one
    assert release(ranker, two, by="test")["state"] == "promoted"
    assert release(ranker, two, by="test")["state"] == "unchanged"
    assert serves(host) == two
    with pytest.raises(ConfigurationError, match="older partition"):
        release(ranker, one, by="test")
    planned = rollback(ranker.name, to=None, by="anna", dry_run=True)
    assert (planned["state"], planned["version"]) == ("planned", one)
    assert serves(host) == two
    back = rollback(ranker.name, to=None, by="anna", reason="customers complain")
    assert (back["state"], back["version"], back["from"]) == ("rolled_back", one, two)
    assert serves(host) == one
    found = status("recommend")["recommend"]
    assert (found["pointer"]["stable"], found["pointer"]["previous"], found["versions"]) == (one, two, 2)
    assert found["agents"][0]["live"] and found["agents"][0]["up_to_date"]


@pytest.mark.slow
def test_a_version_that_fails_its_probe_never_becomes_stable(
    store: ObjectStore, publish: Any, host: Any, ranker: Ranker
) -> None:
    one, bad = publish(FIRST), publish(SECOND, "not_a_number")
    host.start_agent()
    host.start_server()
    release(ranker, one, by="test")
    failed = release(ranker, bad, by="test")
    assert failed["state"] == "rolled_back" and "not finite" in failed["headline"]
    pointer = read_pointer(store, "recommend")
    assert pointer is not None and (pointer.stable, pointer.canary) == (one, None)
    assert [entry.action for entry in read_log(store, "recommend")][-2:] == ["loaded", "withdraw"]
    wait_until(lambda: host.versions_listed() == {one}, 20, "the withdrawn version to be unloaded")
    wait_until(lambda: not (host.models / "recommend" / str(bad)).exists(), 20, "its files to go")
    assert serves(host) == one


@pytest.mark.slow
def test_customers_get_a_canary_in_steps_and_a_person_ends_it(
    store: ObjectStore, publish: Any, host: Any, ranker: Ranker
) -> None:
    """The client library asks all the time; no request fails, whatever the release does."""
    one, two, three = publish(FIRST), publish(SECOND, "other"), publish(date(2011, 9, 1))
    host.start_agent()
    host.start_server()
    release(ranker, one, by="test")
    careful = ranker.with_values(
        {
            "release.approval": True,
            "release.max_latency_ratio": 20,
            "release.shadow.requests": 10,
            "release.canary": {"shares": [0.3, 0.6], "min_requests": 20, "step_minutes": 2},
        }
    )
    failed, seen, stop = [], set(), threading.Event()

    def ask(caller: Caller) -> None:
        for number in itertools.count():
            if stop.wait(0.01):
                return
            try:
                seen.add(caller.predict({"history": ["title 1"]}, session=str(number), timeout=20).version)
            except Exception as error:  # noqa: BLE001 - whatever it is, a customer had no answer
                failed.append(error)

    with Caller("recommend", [host.grpc], store, name="shop", every=0.2) as caller:
        thread = threading.Thread(target=ask, args=(caller,))
        thread.start()
        try:
            held = release(careful, two, by="test")
            assert held["state"] == "held" and "reshelve approve" in held["headline"], held
            pointer = read_pointer(store, "recommend")
            assert pointer is not None and (pointer.state, pointer.share) == ("approval", 0.6)
            with pytest.raises(TryAgainError, match=f"version {two} is being released"):
                release(careful, three, by="test")
            assert release(careful, two, by="test")["state"] == "held"  # asked again, it still waits
            assert approve(careful, two, by="anna")["state"] == "promoted"
            wait_until(lambda: caller.pointer is not None and caller.pointer.stable == two, 20, "the pointer")
            # A canary whose label is gone: its sessions get the stable version.
            move_pointer(store, "recommend", Offer(three), by="test", reason="")
            assert withdraw(careful.name, by="anna")["withdrawn"] == three
            assert rollback(ranker.name, to=None, by="anna")["version"] == one
            wait_for(host, one)
        finally:
            stop.set()
            thread.join()
    assert failed == [] and {one, two} <= seen
    log = read_log(store, "recommend")
    assert problems(log) == []
    way = [entry.action for entry in log[4:]]
    assert way == ["offer", "loaded", "probed", "agreed", "passed", "passed", "approve", "promote",
                   "offer", "withdraw", "rollback"]  # fmt: skip
    passed = [entry.evidence for entry in log if entry.action == "passed"]
    assert all(found["requests"]["canary"] >= 20 and not found["errors"]["canary"] for found in passed)


@pytest.mark.slow
def test_what_was_taken_back_is_not_offered_by_the_nights_after_it(
    store: ObjectStore, publish: Any, host: Any, ranker: Ranker
) -> None:
    one, two, three = publish(FIRST), publish(SECOND, "other"), publish(date(2011, 9, 1))
    host.start_agent()
    host.start_server()
    release(ranker, one, by="test")
    asks = ranker.with_values({"release.approval": True})
    asked = release(asks, two, by="night")
    assert asked["awaits_approval"] and read_log(store, "recommend")[-1].action == "probed"
    again = release(asks, two, by="night")
    assert again["awaits_approval"] and again["sequence"] == asked["sequence"], "pages that show it stay true"
    assert serves(host, "canary") == two
    freeze.hold(store, "recommend", by="watch", reason="a broken partition", cause="data")
    with pytest.raises(TryAgainError, match="releases are frozen"):
        release(asks, two, by="night")
    found = freeze.read_hold(store, "recommend")
    assert found is not None and found.waiting == two
    assert withdraw(asks.name, version=two, by="anna")["withdrawn"] == two
    lifted = freeze.lift(store, "recommend")
    assert lifted is not None and lifted.waiting is None, "the end of the hold would release it again"
    wait_until(lambda: host.versions_listed() == {one}, 20, "the withdrawn version to be unloaded")

    with pytest.raises(DataError, match="no longer being released"):
        release(asks, two, by="night", resume=True)  # a retry of its own night

    assert release(asks, three, by="night")["awaits_approval"]
    assert approve(asks, three, by="anna")["state"] == "promoted"
    assert (serves(host), serves(host, "canary")) == (three, None)
    pointer, log = read_pointer(store, "recommend"), read_log(store, "recommend")
    assert pointer is not None and (pointer.stable, pointer.previous) == (three, one)
    offered = [entry.pointer.canary for entry in log if entry.action == "offer"]
    assert offered == [one, two, three] and problems(log) == []
    with pytest.raises(DataError, match="was never stable"):
        rollback(ranker.name, to=two, by="watch")


@pytest.mark.slow
def test_a_tampered_version_is_never_loaded(
    store: ObjectStore, publish: Any, host: Any, ranker: Ranker
) -> None:
    one, two = publish(FIRST), publish(SECOND)
    host.start_agent()
    host.start_server()
    release(ranker, one, by="test")
    key = f"models/recommend/{two}/saved_model.pb"
    found = store.get(key)
    assert found is not None
    store.put(key, found.body[:-1] + bytes([found.body[-1] ^ 1]))  # the same size
    failed = release(ranker, two, by="test")
    assert failed["state"] == "rolled_back" and "do not match the manifest's digests" in failed["headline"]
    assert serves(host) == one
    with pytest.raises(NothingServesError), RankingClient(host.grpc) as client:
        client.predict("recommend", {"history": ["title 1"]}, version=two)
    assert not (host.models / "recommend" / str(two)).exists()


@pytest.mark.slow
def test_everything_killed_and_started_again_serves_the_same_version(
    store: ObjectStore, publish: Any, host: Any, ranker: Ranker
) -> None:
    one, two = publish(FIRST), publish(SECOND)
    agent, server = host.start_agent(), host.start_server()
    release(ranker, one, by="test")
    move_pointer(store, "recommend", Offer(two), by="test", reason="in the middle of a canary")
    wait_until(lambda: serves(host, "canary") == two, 60, "the canary")
    host.kill(server)
    host.kill(agent)
    (host.models / "recommend" / str(two) / "saved_model.pb").write_bytes(b"changed while nobody looked")
    agent = host.start_agent()
    wait_until(
        lambda: host.versions_listed() == {one}, 60, "the agent to take the changed version out of the list"
    )
    host.start_server()
    wait_for(host, one)
    wait_until(lambda: serves(host, "canary") == two, 60, "the canary, copied again")
    assert release(ranker, two, by="test")["state"] == "promoted"  # resumes: the slot is its own
    host.kill(agent)
    assert serves(host) == two  # an agent is not needed to serve


@pytest.mark.slow
def test_an_agent_killed_while_copying_starts_clean(
    store: ObjectStore, publish: Any, make_stable: Any, host: Any
) -> None:
    one = publish(FIRST, ballast=300_000_000)
    make_stable(store, "recommend", one)
    incoming = host.models / "recommend" / f".incoming-{one}"
    agent = host.start_agent()
    wait_until(incoming.exists, 60, "the copy to begin", every=0.005)
    host.kill(agent)
    assert incoming.exists() and not (host.models / "recommend" / str(one)).exists()
    host.start_agent()
    host.start_server()
    wait_for(host, one)
    assert not incoming.exists()


@pytest.mark.slow
def test_with_s3_away_serving_goes_on_and_recovers(
    tmp_path: Path,
    publish: Any,
    host: Any,
    ranker: Ranker,
    store: ObjectStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    directory, port = tmp_path / "own-s3", free_port()
    own = seaweedfs.start_seaweedfs(directory, port, tmp_path / "own-s3.log")
    try:
        for name, value in seaweedfs.environment(port, seaweedfs.credentials(directory)).items():
            monkeypatch.setenv(name, value)
        objects.object_store.cache_clear()
        own_store = objects.object_store()
        own_store.create_bucket()
        one = publish(FIRST)
        agent, server = host.start_agent(), host.start_server()
        assert release(ranker, one, by="test")["state"] == "promoted"
        stop_group(own.pid)
        host.kill(server)
        host.start_server()
        wait_for(host, one)  # models.config has it all
        host.kill(agent)
        log = host.logs / "agent"
        before = log.stat().st_size
        host.start_agent()
        wait_until(
            lambda: b"not checked yet" in log.read_bytes()[before:], 60, "an agent that finds no store"
        )
        assert serves(host) == one
        own = seaweedfs.start_seaweedfs(directory, port, tmp_path / "own-s3.log")
        wait_until(
            lambda: any(r.age() < 2 for r in live_reports(own_store, "recommend")), 60, "a fresh report"
        )
        assert serves(host) == one
    finally:
        stop_group(own.pid)


@pytest.mark.slow
def test_two_rankers_in_one_server_do_not_disturb_each_other(
    store: ObjectStore, publish: Any, make_stable: Any, host: Any
) -> None:
    one, other = publish(FIRST), publish(SECOND, ranker="search")
    host.start_agent()
    host.start_server()
    make_stable(store, "recommend", one)
    wait_for(host, one)
    make_stable(store, "search", other)
    wait_until(lambda: serves(host, ranker="search") == other, 60, "the second ranker")
    assert serves(host) == one


def test_without_agents_a_release_says_so_and_frees_its_slot(
    store: ObjectStore, publish: Any, ranker: Ranker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "FIRST_REPORT_SECONDS", 0)
    one = publish(FIRST, "no_model")
    with pytest.raises(TryAgainError, match="no serving agent has reported"):
        release(ranker, one, by="test")
    assert [entry.action for entry in read_log(store, "recommend")] == ["offer", "withdraw"]
    with pytest.raises(TryAgainError, match="no serving agent has reported"):  # nobody took it back
        release(ranker, one, by="test", resume=True)
    assert len(read_log(store, "recommend")) == 2  # the second time it knows before it offers


def test_a_held_version_is_released_only_by_a_person(
    store: ObjectStore, publish: Any, make_stable: Any, ranker: Ranker, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = publish(FIRST, "no_model", verdict="hold")
    with pytest.raises(ConfigurationError, match="the gate said hold"):
        release(ranker, one, by="test")
    with pytest.raises(ConfigurationError, match="no person allows it"):
        make_stable(store, "recommend", one)
    make_stable(store, "recommend", one, held=True)
    monkeypatch.setattr(fleet, "_LABEL_SECONDS", 0)
    with pytest.raises(TryAgainError, match="no serving agent"):
        release(ranker, one, by="anna", allow_held=True)


def test_a_rollback_needs_somewhere_to_go(
    store: ObjectStore, publish: Any, make_stable: Any, ranker: Ranker
) -> None:
    with pytest.raises(DataError, match="nothing has been released"):
        rollback(ranker.name, to=None, by="anna")
    one = publish(FIRST, "no_model")
    make_stable(store, "recommend", one)
    with pytest.raises(DataError, match="no previous version"):
        rollback(ranker.name, to=None, by="anna")
    with pytest.raises(DataError, match="is not published"):
        rollback(ranker.name, to=20110101001, by="anna")
    two = publish(SECOND, "no_model")
    with pytest.raises(DataError, match="was never stable"):
        rollback(ranker.name, to=two, by="anna", dry_run=True)
    store.delete([f"models/recommend/{one}/saved_model.pb"])
    with pytest.raises(DataError, match="missing or have another size"):
        rollback(ranker.name, to=one, by="anna")
