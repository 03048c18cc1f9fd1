"""What must not take a server down, or keep a rollback from it: killers, slow loads, refusals, crashes at any moment.

A real agent beside a real model server; `RESHELVE_MODEL_SERVER_COMMAND` puts another one in its place (see `conftest.Host`).
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from typing import Any

import grpc
import pytest

from reshelve.client.client import RankingClient
from reshelve.config.ranker import Ranker
from reshelve.deployments.deployment_log import Offer, move_pointer, read_pointer
from reshelve.errors import ReshelveError
from reshelve.processes import start, wait_until
from reshelve.protocol import messages
from reshelve.protocol.reports import live_reports
from reshelve.rollout.release import release
from reshelve.rollout.roll_back import rollback
from reshelve.store.objects import ObjectStore

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
FIRST, SECOND, THIRD = date(2011, 8, 30), date(2011, 8, 31), date(2011, 9, 1)


def serves(host: Any, ranker: str = "recommend", label: str = "stable") -> int | None:
    with RankingClient(host.grpc) as client:
        try:
            return client.predict(ranker, {"history": ["title 1"]}, label=label, timeout=5).version
        except ReshelveError:
            return None


@contextmanager
def asked_all_the_time(host: Any, clients: int = 1, ranker: str = "recommend") -> Iterator[Counter[str]]:
    """Callers who follow no pointer and try nothing again; what each request came to is counted."""
    found: Counter[str] = Counter()
    stop = threading.Event()
    request = messages.predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.version_label = ranker, "stable"
    request.inputs["history"].CopyFrom(messages.to_tensor(["title 1"] * 64))

    def ask() -> None:
        with grpc.insecure_channel(host.grpc) as channel:
            stub = messages.prediction_service_pb2_grpc.PredictionServiceStub(channel)
            while not stop.is_set():
                try:
                    stub.Predict(request, timeout=10)
                    found["answered"] += 1
                except grpc.RpcError as error:
                    found[f"{error.code().name}: {error.details()}"] += 1
                    stop.wait(0.001)

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_version_that_ends_the_server_while_it_loads_is_withdrawn_and_never_started_from(
    store: ObjectStore, publish: Any, host: Any, ranker: Ranker
) -> None:
    one, killer, good = publish(FIRST), publish(SECOND, loads_with="kill"), publish(THIRD, "other")
    agent = host.start_agent()
    with host.restarted() as server:
        release(ranker, one, by="test")
        before = server.starts
        ended = release(ranker, killer, by="test")
        assert ended["state"] == "rolled_back" and "ended while it loaded" in ended["headline"], ended
        wait_until(lambda: serves(host) == one, 120, "the stable version again")
        assert server.starts == before + 1
        assert host.versions_listed() == {one}
        # A second one, and the agent goes with the server: whoever starts next finds a file to start from.
        move_pointer(
            store, "recommend", Offer(publish(date(2011, 9, 2), loads_with="kill")), by="test", reason=""
        )
        starts = server.starts
        wait_until(lambda: server.starts > starts, 120, "the end of the server")
        host.kill(agent)
        assert host.versions_listed() == {one}
        wait_until(lambda: serves(host) == one, 120, "the stable version without an agent")
        agent = host.start_agent()

        def told() -> bool:
            return any("ended while it loaded" in (r.error or "") for r in live_reports(store, "recommend"))

        wait_until(told, 120, "the report")
        assert serves(host) == one
        pointer = read_pointer(store, "recommend")
        assert pointer is not None and pointer.canary is not None
        assert release(ranker, pointer.canary, by="test")["state"] == "rolled_back"
        assert release(ranker, good, by="test", allow_older=True)["state"] == "promoted"
        assert serves(host) == good


def test_a_server_that_was_killed_while_it_loaded_comes_back_with_the_stable_version(
    store: ObjectStore, publish: Any, host: Any, ranker: Ranker
) -> None:
    """Not the version's doing; nobody can know, so a canary is not tried again until it is released again."""
    one, two = publish(FIRST), publish(SECOND, loads_with="sleep 5")
    host.start_agent()
    with host.restarted() as server:
        release(ranker, one, by="test")
        answer: list[dict[str, Any]] = []
        thread = threading.Thread(target=lambda: answer.append(release(ranker, two, by="test")))
        thread.start()
        wait_until(lambda: host.state(two) == "LOADING", 120, "the load")
        server.kill()
        thread.join(timeout=240)
        assert answer[0]["state"] == "rolled_back", answer
        wait_until(lambda: serves(host) == one, 120, "the stable version")
        assert release(ranker, two, by="test")["state"] == "promoted"


def test_no_label_waits_for_the_first_load_of_another_ranker(
    store: ObjectStore, publish: Any, host: Any, ranker: Ranker
) -> None:
    """ReloadConfig returns when new models have loaded, and holds a thread meanwhile: 8 of them here, less one."""
    host.threads = 8
    one, two = publish(FIRST), publish(SECOND, "other")
    slow = publish(FIRST, ranker="ads", loads_with="sleep 25")
    host.start_agent()
    host.start_server()
    release(ranker, one, by="test")
    release(ranker, two, by="test")
    with asked_all_the_time(host) as found:
        move_pointer(store, "ads", Offer(slow), by="test", reason="")
        wait_until(lambda: host.state(slow, "ads") == "LOADING", 120, "the slow load")
        assert rollback(ranker.name, to=None, by="test")["state"] == "rolled_back"
        assert rollback(ranker.name, to=two, by="test")["state"] == "rolled_back"
        assert host.state(slow, "ads") == "LOADING"  # or this has shown nothing
        wait_until(lambda: host.state(slow, "ads") == "AVAILABLE", 120, "its end")
    assert found.keys() == {"answered"}, found
    wait_until(lambda: serves(host, "ads", "canary") == slow, 60, "the label of the slow one")


def test_a_rollback_gets_through_to_a_server_that_refuses_calls(
    store: ObjectStore, publish: Any, host: Any, ranker: Ranker
) -> None:
    """Busy is not away: what serves is not touched because a call was refused, and the labels answer all the time."""
    host.threads = 4
    one, two = publish(FIRST), publish(SECOND, "other")
    host.start_agent()
    host.start_server()
    release(ranker, one, by="test")
    release(ranker, two, by="test")
    file = (host.models / "models.config").read_text()
    with asked_all_the_time(host, clients=32) as found:
        wait_until(lambda: sum(found.values()) - found["answered"] > 100, 60, "refusals")
        assert rollback(ranker.name, to=None, by="test")["state"] == "rolled_back"
        assert release(ranker, two, by="test", allow_older=True)["state"] == "promoted"
    refused = "RESOURCE_EXHAUSTED: Server Threadpool Exhausted"
    assert found.keys() == {"answered", refused}, found
    assert (host.models / "models.config").read_text() == file
    assert all(report.error is None for report in live_reports(store, "recommend"))


def test_whatever_is_killed_a_server_that_is_restarted_comes_back_with_a_version_that_is_wanted(
    store: ObjectStore, publish: Any, host: Any, ranker: Ranker
) -> None:
    """`RESHELVE_KILLS` (default 12) moments between published and served; `RESHELVE_FAULTS_SEED` repeats a run."""
    seed = int(os.environ.get("RESHELVE_FAULTS_SEED", "20110830"))
    dice = random.Random(seed)
    day, killed, history = FIRST, 0, []
    agent = host.start_agent()
    with host.restarted() as server:
        release(ranker, publish(day), by="test")
        while killed < int(os.environ.get("RESHELVE_KILLS", "12")):
            day += timedelta(days=1)
            loads_with = dice.choice(["", "", "", "sleep 2", "kill"])
            version = publish(day, dice.choice(["good", "other"]), loads_with=loads_with)
            command = [
                sys.executable,
                "-m",
                "reshelve.cli",
                "release",
                "--ranker",
                "recommend",
                "--by",
                "test",
            ]
            driver = start([*command, "--version", str(version), "--allow-held"], host.logs / "release")
            for _ in range(dice.randint(1, 3)):
                time.sleep(dice.random() * 3)
                whom = dice.choice(["server", "server", "agent", "both", "release"])
                history.append((loads_with, whom))
                killed += 1
                if whom in ("agent", "both"):
                    host.kill(agent)
                if whom in ("server", "both"):
                    server.kill()
                if whom == "release" and driver.poll() is None:
                    driver.kill()
                if whom in ("agent", "both"):
                    time.sleep(dice.random())
                    agent = host.start_agent()

                def comes_back() -> bool:
                    pointer, version = read_pointer(store, "recommend"), serves(host)
                    return pointer is not None and version is not None and version in pointer.wanted

                wait_until(comes_back, 120, f"a wanted version after {json.dumps([seed, history])}")
                listed, pointer = host.versions_listed(), read_pointer(store, "recommend")
                assert pointer is not None and listed & pointer.wanted, (seed, history, listed, pointer)
            driver.kill()
            driver.wait()
            withdraw = [sys.executable, "-m", "reshelve.cli", "withdraw", "--ranker", "recommend"]
            subprocess.run(withdraw, check=True, capture_output=True, timeout=120)
    sys.stderr.write(
        json.dumps({"seed": seed, "killed": killed, "starts": server.starts, "history": history})
    )
