"""What a version does beyond computing is refused by a real agent, whoever signed it; changed bytes are never loaded."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from reshelve.client.client import RankingClient
from reshelve.deployments.deployment_log import Offer, Withdraw, move_pointer
from reshelve.errors import TryAgainError
from reshelve.processes import wait_until
from reshelve.protocol.reports import live_reports
from reshelve.settings import PROJECT
from reshelve.store.objects import ObjectStore

pytestmark = pytest.mark.slow
ATTACKS = {
    "reads in a branch": "ReadFile",
    "writes": "WriteFile",
    "saves": "SaveV2",
    "runs Python eagerly": "EagerPyFunc",
}


@pytest.fixture(scope="module")
def attacks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of SavedModels, made in a child process."""
    root = tmp_path_factory.mktemp("attacks")
    subprocess.run(
        [sys.executable, "-m", "tests.attacks", str(root)], check=True, capture_output=True, cwd=PROJECT
    )
    return root


def scores(host: Any) -> float | None:
    """What the stable version answers, or None where none does."""
    with RankingClient(host.grpc) as client:
        try:
            answer = client.predict("recommend", {"history": ["title 1"]}, label="stable", absence=0)
        except TryAgainError:
            return None
        return float(answer.outputs["score"].ravel()[0])


def test_an_agent_refuses_a_graph_that_does_more_than_compute(
    store: ObjectStore, publish: Callable[..., int], make_stable: Callable[..., Any], host: Any, attacks: Path
) -> None:
    one = publish(date(2011, 8, 1), attacks / "harmless")
    make_stable(store, "recommend", one)
    host.start_agent(operations="")
    host.start_server()
    wait_until(lambda: scores(host) == 5, 120, "the harmless version")  # nothing of the table, and 2 + 3
    for day, (attack, operation) in enumerate(ATTACKS.items(), start=2):
        hostile = publish(date(2011, 8, day), attacks / attack)
        move_pointer(store, "recommend", Offer(hostile), by="test", reason="")

        def failure(version: int = hostile) -> str | None:
            return next(
                (r.failures[version] for r in live_reports(store, "recommend") if version in r.failures), None
            )

        wait_until(lambda: failure() is not None, 60, f"the refusal of what {attack}")
        assert f"would do more than compute: {operation} in function" in str(failure())
        assert host.state(hostile) is None and host.state(one) == "AVAILABLE"
        assert host.versions_listed() == {one} and scores(host) == 5
        assert not (host.models / "recommend" / str(hostile)).exists()
        move_pointer(store, "recommend", Withdraw(hostile), by="test", reason="")


def tamper(version: Path, other: Path) -> None:
    """Another version's weights, of the same size and of the same time."""
    for path in sorted((other / "variables").iterdir()):
        target = version / "variables" / path.name
        times = target.stat()
        shutil.copyfile(path, target)
        os.utime(target, ns=(times.st_atime_ns, times.st_mtime_ns))


@contextmanager
def asked_all_the_time(host: Any) -> Iterator[set[float]]:
    """What customers were answered while the block ran."""
    found: set[float] = set()
    over = threading.Event()

    def ask() -> None:
        while not over.wait(0.02):
            score = scores(host)
            if score is not None:
                found.add(round(score, 3))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield found
    finally:
        over.set()
        asking.join()


def test_what_was_changed_after_the_copy_is_not_loaded(
    store: ObjectStore,
    publish: Callable[..., int],
    make_stable: Callable[..., Any],
    host: Any,
    saved_models: dict[str, Path],
) -> None:
    """Before its first load; and while it serves, before a server that comes back by itself."""
    one = publish(date(2011, 8, 30))
    make_stable(store, "recommend", one)
    host.start_agent()
    version = host.models / "recommend" / str(one)
    wait_until(version.is_dir, 60, "the copy")
    wait_until(lambda: (host.models / "models.config").is_file(), 60, "the list")
    tamper(version, saved_models["other"])
    server = host.start_server()
    with asked_all_the_time(host) as answers:
        wait_until(lambda: scores(host) is not None, 60, "the version, copied again")
        wait_until(lambda: host.versions_listed() == {one}, 60, "the file that a server starts from")
        folder, seen = version.stat().st_ino, (host.logs / "agent").read_bytes().count(b"changed")
        tamper(version, saved_models["other"])
        host.kill(server)
        wait_until(
            lambda: (host.logs / "agent").read_bytes().count(b"changed") > seen, 60, "the agent to see it"
        )
        host.start_server()
        wait_until(lambda: scores(host) is not None, 120, "the version, copied again")
    assert answers == {0.4}, "the other one scores 0.8"
    assert version.stat().st_ino == folder


def test_what_serves_goes_on_while_its_changed_files_are_copied_again(
    store: ObjectStore,
    publish: Callable[..., int],
    make_stable: Callable[..., Any],
    host: Any,
    saved_models: dict[str, Path],
) -> None:
    one = publish(date(2011, 8, 30))
    make_stable(store, "recommend", one)
    host.start_agent()
    host.start_server()
    wait_until(lambda: host.versions_listed() == {one}, 120, "the file that a server starts from")
    version = host.models / "recommend" / str(one)
    path = next((version / "variables").glob("variables.data*"))
    right = path.read_bytes()
    before = (host.logs / "agent").read_text().count("told the server")
    tamper(version, saved_models["other"])
    wait_until(lambda: path.read_bytes() == right, 60, "the right bytes")
    wait_until(lambda: host.versions_listed() == {one}, 60, "the file that a server starts from")
    assert scores(host) == pytest.approx(0.4)
    assert (host.logs / "agent").read_text().count("told the server") == before, (
        "nothing was loaded or unloaded"
    )
