"""A release whose process died or stands still in the middle of a canary: the next one takes its place, on real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from reshelve.client.client import RankingClient
from reshelve.config.ranker import Ranker
from reshelve.deployments.deployment_log import pointer_key, problems, read_log, read_pointer
from reshelve.deployments.leases import abandoned, lease_key
from reshelve.deployments.release_table import ReleaseState
from reshelve.errors import EXIT_DATA, TryAgainError
from reshelve.processes import free_port, start, stop_group, wait_until
from reshelve.protocol.reports import Report, Serving, write_report
from reshelve.rollout.release import release
from reshelve.settings import settings
from reshelve.store.objects import ObjectStore

pytestmark = pytest.mark.slow

_LEASE = 3.0
_ENDLESS = {"shares": [0.5], "min_requests": 10_000, "step_minutes": 60}  # nobody asks: it stays a canary


@pytest.fixture
def short_lease(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here and in child processes."""
    monkeypatch.setenv("RESHELVE_RELEASE_LEASE_SECONDS", str(_LEASE))
    settings.cache_clear()


@pytest.fixture
def drive(
    ranker: Ranker, store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[int], subprocess.Popen[bytes]]]:
    """`drive(version)`: a process of its own that releases it and has come to its canary."""
    directory = tmp_path / "rankers"
    directory.mkdir()
    careful = ranker.with_values({"release.canary": _ENDLESS})
    (directory / "recommend.yaml").write_text(yaml.safe_dump(careful.model_dump(mode="json")))
    monkeypatch.setenv("RESHELVE_RANKERS_DIR", str(directory))
    settings.cache_clear()
    started: list[subprocess.Popen[bytes]] = []

    def driver(version: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "reshelve.cli", "release", "--ranker", "recommend", "--by", "driver"]
        process = start([*command, "--version", str(version)], tmp_path / "driver.log")
        started.append(process)

        def in_canary() -> bool:
            assert process.poll() is None, (tmp_path / "driver.log").read_text()
            pointer = read_pointer(store, "recommend")
            return pointer is not None and (pointer.canary, pointer.state) == (version, ReleaseState.CANARY)

        wait_until(in_canary, 120, f"the canary {version}")
        return process

    yield driver
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGCONT)
            stop_group(process.pid)


def pointer_age(store: ObjectStore) -> float:
    found = store.get(pointer_key("recommend"))
    assert found is not None
    return found.age


def wait_until_abandoned(store: ObjectStore) -> None:
    def gone() -> bool:
        pointer = read_pointer(store, "recommend")
        return pointer is not None and abandoned(store, pointer) is not None

    wait_until(gone, 60, "the end of the lease")


def serves(host: Any, label: str) -> int:
    with RankingClient(host.grpc) as client:
        return client.predict("recommend", {"history": ["title 1"]}, label=label).version


def test_the_next_release_takes_the_place_of_one_that_died_or_stands_still(
    short_lease: None, store: ObjectStore, publish: Any, host: Any, ranker: Ranker, drive: Any
) -> None:
    one, two, three = (publish(date(2011, 8, day)) for day in (29, 30, 31))
    host.start_agent()
    host.start_server()
    release(ranker, one, by="test")

    killed = drive(two)
    with pytest.raises(TryAgainError, match=f"version {two} is being released"):
        release(ranker, three, by="test")
    wait_until(lambda: pointer_age(store) > 1.5 * _LEASE, 60, "a pointer older than a lease")
    with pytest.raises(TryAgainError, match=f"version {two} is being released"):
        release(ranker, three, by="test")
    host.kill(killed.pid)
    killed.returncode = -9
    assert (serves(host, "stable"), serves(host, "canary")) == (one, two), "a dead release stops nobody"
    wait_until_abandoned(store)
    found = release(ranker, three, by="test")
    assert (found["state"], found["steps"][1]["step"]) == ("promoted", "take over")
    assert serves(host, "stable") == three
    assert store.get(lease_key("recommend", two)) is None

    four, five = publish(date(2011, 9, 1)), publish(date(2011, 9, 2))
    paused = drive(four)
    os.killpg(paused.pid, signal.SIGSTOP)
    wait_until_abandoned(store)
    assert release(ranker, five, by="test")["state"] == "promoted"
    os.killpg(paused.pid, signal.SIGCONT)
    assert paused.wait(timeout=60) == EXIT_DATA, "its release was taken back, and it does not ask again"
    pointer = read_pointer(store, "recommend")
    assert pointer is not None and (pointer.stable, pointer.canary) == (five, None)
    log = read_log(store, "recommend")
    assert problems(log) == []
    withdrawn = [entry for entry in log if entry.action == "withdraw"]
    assert [entry.evidence["state"] for entry in withdrawn] == ["canary", "canary"]
    assert all(entry.pointer.by == "test" and entry.evidence["quiet_seconds"] >= 3 for entry in withdrawn)


def test_the_same_version_goes_on_at_once(
    short_lease: None, store: ObjectStore, publish: Any, host: Any, ranker: Ranker, drive: Any
) -> None:
    one, two = publish(date(2011, 8, 30)), publish(date(2011, 8, 31))
    host.start_agent()
    host.start_server()
    release(ranker, one, by="test")
    killed = drive(two)
    host.kill(killed.pid)
    killed.returncode = -9
    assert drive(two).poll() is None
    assert [entry.action for entry in read_log(store, "recommend")].count("offer") == 2


def test_a_release_that_meets_an_absent_server_is_not_taken_back_and_locks_nobody_out(
    short_lease: None, store: ObjectStore, publish: Any, make_stable: Any, ranker: Ranker
) -> None:
    """An agent has reported the version as loaded; then its server is gone, when the probe comes."""
    one, two, three = (publish(date(2011, 8, day)) for day in (29, 30, 31))
    make_stable(store, "recommend", one)
    hurried = ranker.with_values({"release.ready_seconds": 5})
    server = f"127.0.0.1:{free_port()}"

    def release_meets_nobody(version: int) -> None:
        serving = Serving(stable=one, canary=version)
        report = Report(agent="a", server=server, at=datetime.now(UTC), sequence=1000, serving=serving)
        write_report(store, "recommend", report)
        with pytest.raises(TryAgainError, match=f"{server} cannot be reached"):
            release(hurried, version, by="night")

    release_meets_nobody(two)
    release_meets_nobody(two)  # and goes on where it was
    pointer = read_pointer(store, "recommend")
    assert pointer is not None and (pointer.stable, pointer.canary, pointer.state) == (
        one,
        two,
        ReleaseState.PROBING,
    )
    with pytest.raises(TryAgainError, match=f"version {two} is being released"):
        release(hurried, three, by="night")
    wait_until_abandoned(store)
    release_meets_nobody(three)
    actions = [(entry.action, entry.pointer.canary) for entry in read_log(store, "recommend")][4:]
    assert actions == [
        ("offer", two), ("loaded", two), ("withdraw", None), ("offer", three), ("loaded", three),
    ]  # fmt: skip
