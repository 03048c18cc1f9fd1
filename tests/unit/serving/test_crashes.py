"""An agent that dies between any two of its steps, alone or with its server: what is left is a file to start from.

The store is a real one. The server is a table of TensorFlow Serving's rules, so that every step can be tried: it ends for good
where its file names what it cannot load, refuses labels of what is not AVAILABLE, and ends while it loads a killer.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tests.graphs import graph_bytes

from reshelve.agent.admin import ServerRefusedError
from reshelve.agent.agent import Agent
from reshelve.agent.placeholder import PLACEHOLDER
from reshelve.agent.reloading import Reloads
from reshelve.agent.server_plan import Observed, VersionState
from reshelve.client.client import ServerAwayError
from reshelve.deployments.deployment_log import move_pointer, read_pointer
from reshelve.deployments.moves import Advance, Change, Offer, Promote, Revert, Withdraw
from reshelve.deployments.pointer import Pointer
from reshelve.deployments.release_table import Event
from reshelve.deployments.release_table import ReleaseState as Stage
from reshelve.processes import wait_until
from reshelve.protocol.model_config import ModelEntry, parse
from reshelve.protocol.reports import live_reports
from reshelve.settings import settings
from reshelve.store.objects import ObjectStore

pytestmark = pytest.mark.timeout(900)


class Crash(BaseException):
    """kill -9, as far as the rest of the process can see it."""


class Server:
    """One model server by its rules; `killers` end it."""

    address = "nowhere"

    def __init__(self, killers: set[int]) -> None:
        self.killers, self.lives = killers, False
        self.states: dict[str, dict[int, VersionState]] = {}
        self.labels: dict[str, dict[str, int]] = {}

    def start(self, models: Path) -> None:
        """Raises AssertionError where it would end at its start, every time."""
        file = models / "models.config"
        entries = parse(file.read_text()) if file.is_file() else {}
        for entry in entries.values():
            for version in entry.versions:
                assert version not in self.killers, f"the file names {version}, which ends the server"
                assert (entry.base_path / str(version)).is_dir(), (
                    f"the file names {version}, which is not there"
                )
        self.states = {e.name: dict.fromkeys(e.versions, VersionState.AVAILABLE) for e in entries.values()}
        self.labels = {e.name: dict(e.labels) for e in entries.values()}
        self.lives = True

    def observe(self, ranker: str) -> Observed:
        self._must_live()
        states = dict(self.states.get(ranker, {}))
        placeholder = states.pop(PLACEHOLDER, None)
        return Observed(states, self.labels.get(ranker, {}), {}, placeholder is VersionState.AVAILABLE)

    def reload(self, entries: Iterable[ModelEntry], timeout: float, others: Any = ()) -> None:
        self._must_live()
        told = {entry.name: entry for entry in entries}
        for entry in told.values():
            for version in entry.labels.values():
                if self.states.get(entry.name, {}).get(version) is not VersionState.AVAILABLE:
                    raise ServerRefusedError("refused", f"label of {version}")
        self.labels = {name: dict(entry.labels) for name, entry in told.items()}
        for name in {*self.states, *told}:
            states = self.states.setdefault(name, {})
            wanted = told[name].versions if name in told else frozenset()
            for version in wanted - {v for v, s in states.items() if s is not VersionState.END}:
                if version in self.killers:
                    self.lives = False
                    raise ServerAwayError("ended", str(version))
                states[version] = VersionState.AVAILABLE
            states.update(dict.fromkeys(set(states) - wanted, VersionState.END))

    def _must_live(self) -> None:
        if not self.lives:
            raise ServerAwayError("away", "")

    def close(self) -> None:
        """Nothing to close."""


class Steps:
    """Counts what an agent does to the world, and dies before or after the step of a number."""

    def __init__(self, patch: pytest.MonkeyPatch, server: Server) -> None:
        self.done, self.dies_at, self.crashes = 0, 0, 0
        for owner, name in ((Path, "rename"), (Path, "replace"), (Path, "unlink"), (shutil, "rmtree"),
                            (os, "fsync"), (server, "reload"), (server, "observe")):  # fmt: skip
            patch.setattr(owner, name, self._counted(getattr(owner, name)))

    def _counted(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **more: Any) -> Any:
            self._one()
            found = step(*args, **more)
            self._one()
            return found

        return counted

    def _one(self) -> None:
        self.done += 1
        if self.done == self.dies_at:
            self.crashes += 1
            raise Crash


@pytest.mark.parametrize("server_dies_too", [True, False])
def test_after_any_step_the_server_can_start_and_the_agent_goes_on(
    store: ObjectStore, publish: Any, tmp_path: Path, server_dies_too: bool
) -> None:
    """`RESHELVE_CRASHES` (default 25) of them; `RESHELVE_FAULTS_SEED` repeats a run."""
    one, killer, two = (publish(date(2011, 8, day), "no_model") for day in (29, 30, 31))
    ways: list[Change] = [
        *_released(one), Offer(killer), Withdraw(killer), *_released(two), Revert(one),
    ]  # fmt: skip
    dice = random.Random(int(os.environ.get("RESHELVE_FAULTS_SEED", "20110830")))
    crashes = 0
    for life in itertools.count():
        store.delete([key for key, _ in store.list("deployments/")])
        shutil.rmtree(settings().home / "followed", ignore_errors=True)  # of the log that was here before
        store = ObjectStore(store.bucket)  # and what this process remembers of it
        with pytest.MonkeyPatch.context() as patch:
            host = Life(store, tmp_path / f"{life}", patch, dice, killer, server_dies_too=server_dies_too)
            for change in ways:
                host.follows(change)
            host.ends(stable=one)
            crashes += host.steps.crashes
        if crashes >= int(os.environ.get("RESHELVE_CRASHES", "25")):
            break


def _released(version: int) -> list[Change]:
    return [
        Offer(version),
        Advance(version, Event.LOADED, Stage.LOADING),
        Advance(version, Event.PROBED, Stage.PROBING),
        Promote(version),
    ]


class Life:
    """One life of a host, and how it follows the pointer although its agent dies again and again."""

    def __init__(
        self, store: ObjectStore, models: Path, patch: pytest.MonkeyPatch, dice: random.Random, killer: int,
        *, server_dies_too: bool,
    ) -> None:  # fmt: skip
        models.mkdir()
        self.store, self.models, self.dice, self.killer = store, models, dice, killer
        self.server_dies_too, self.server = server_dies_too, Server({killer})
        self.steps = Steps(patch, self.server)
        self.agent: Agent | None = None
        self.crashes_left = 0

    def follows(self, change: Change) -> None:
        """Raises TryAgainError where it does not come to what the change asks for."""
        self.steps.dies_at = 0  # whoever moves the pointer lives elsewhere
        move_pointer(self.store, "recommend", change, by="test", reason="")
        pointer = read_pointer(self.store, "recommend")
        assert pointer is not None
        # Twice for each move, so that it comes to its end: the steps of a restart are among those that are broken off.
        self.crashes_left = 2
        self._draw()
        wait_until(lambda: self._settles_or_dies(pointer), 60, f"what {change} asks for", every=0.01)

    def _settles_or_dies(self, pointer: Pointer) -> bool:
        try:
            return self._settles(pointer)
        except Crash:
            assert self.agent is not None
            self.agent.copier._pool.shutdown(wait=True)  # a process dies with all its threads
            self.agent, self.crashes_left = None, self.crashes_left - 1
            self._draw()
            self.server.lives = self.server.lives and not self.server_dies_too
            if not self.server.lives:
                self.server.start(self.models)
                assert self.server.states.get("recommend", {}).keys() <= pointer.wanted
            return False

    def _settles(self, pointer: Pointer) -> bool:
        """One round of the agent, and whether all is as the pointer says."""
        if self.agent is None:
            self.agent = _agent(self.models, self.store, self.server)
            self.agent.start()
        if not self.server.lives:
            self.server.start(self.models)
        self.agent._sent = None  # rounds come as they come here: none is too soon
        self.agent.round()
        seen = Observed(self.server.states.get("recommend", {}), self.server.labels.get("recommend", {}))
        blamed = self.killer not in pointer.wanted or self.killer in self.agent.loads.failures(
            "recommend", seen
        )
        loaded = seen.available - {PLACEHOLDER} == pointer.wanted - {self.killer}
        return (
            self.server.lives and loaded and blamed and not self.agent.reloads.under_way
            and seen.labels.get("stable") == pointer.stable
        )  # fmt: skip

    def ends(self, stable: int) -> None:
        """A last round without a crash leaves what the next start needs."""
        assert self.agent is not None
        self.steps.dies_at = 0
        self.agent.round()
        assert parse((self.models / "models.config").read_text())["recommend"].labels == {"stable": stable}
        self.agent.copier.close()

    def _draw(self) -> None:
        self.steps.dies_at = self.steps.done + self.dice.randint(1, 30) if self.crashes_left else 0


def _agent(models: Path, store: ObjectStore, server: Server) -> Agent:
    agent = Agent(models, "127.0.0.1:1", "a", store, store)
    agent.admin.close()
    agent.admin, agent.reloads = server, Reloads(server)  # type: ignore[arg-type, assignment]
    return agent


def test_a_disk_that_takes_nothing_keeps_no_rollback_away(
    store: ObjectStore, publish: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = (publish(date(2011, 8, day), "no_model") for day in (29, 30))
    server, models = Server(set()), tmp_path / "served"
    models.mkdir()
    agent = _agent(models, store, server)
    agent.start()
    server.start(models)

    def rounds_until(done: Callable[[], bool]) -> None:
        def look() -> bool:
            agent._sent = None
            agent.round()
            return done()

        wait_until(look, 60, "what the pointer wants")

    def is_stable(version: int) -> bool:
        return server.labels.get("recommend", {}).get("stable") == version

    for change in [*_released(one), *_released(two)]:
        move_pointer(store, "recommend", change, by="test", reason="")
        version = change.version  # type: ignore[attr-defined]
        rounds_until(lambda v=version: server.states.get("recommend", {}).get(v) is VersionState.AVAILABLE)  # type: ignore[misc]
    rounds_until(lambda: is_stable(two))

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        move_pointer(store, "recommend", Revert(one), by="test", reason="")
        rounds_until(lambda: is_stable(one))
        assert "No space left on device" in (agent.reporter.disk_trouble or "")
    agent.round()
    assert agent.reporter.disk_trouble is None
    assert parse((models / "models.config").read_text())["recommend"].labels == {"stable": one}
    agent.copier.close()


def test_what_serves_goes_on_where_its_operations_are_not_allowed_any_more(
    store: ObjectStore, publish: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that was started without a setting takes nothing from its server, and gives it nothing anew."""
    monkeypatch.setenv("RESHELVE_GRAPH_OPERATIONS", "OurOwn")
    settings.cache_clear()
    saved = SavedModel.FromString(graph_bytes())
    saved.meta_graphs[0].graph_def.node.add(name="own", op="OurOwn")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "saved_model.pb").write_bytes(saved.SerializeToString())
    one, two = (publish(date(2011, 8, day), tmp_path / "own") for day in (29, 30))
    other = publish(date(2011, 8, 30), "no_model", ranker="search")
    server, models = Server(set()), tmp_path / "served"
    models.mkdir()
    agent = _agent(models, store, server)
    agent.start()
    server.start(models)

    def stable(ranker: str, version: int) -> Callable[[], bool]:
        def look() -> bool:
            agent._sent = None
            agent.round()
            return server.labels.get(ranker, {}).get("stable") == version

        return look

    for ranker, version in (("recommend", one), ("recommend", two)):
        for change in _released(version):
            move_pointer(store, ranker, change, by="test", reason="")
        wait_until(stable(ranker, version), 60, "the release")
    agent.close()
    monkeypatch.delenv("RESHELVE_GRAPH_OPERATIONS")
    settings.cache_clear()
    agent = _agent(models, store, server)
    agent.start()
    agent.round()
    for change in _released(other):
        move_pointer(store, "search", change, by="test", reason="")
    wait_until(stable("search", other), 60, "the release of another ranker")
    assert Observed(server.states["recommend"]).available == {one, two}
    assert server.labels["recommend"] == {"stable": two}
    agent.round()
    assert parse((models / "models.config").read_text()).keys() == {"search"}, "nobody loads it anew"
    move_pointer(store, "recommend", Revert(one), by="test", reason="")
    wait_until(stable("recommend", one), 60, "the way back to what is loaded")

    def is_refused() -> bool:
        agent.round()
        return one in agent.copier.failures("recommend")

    wait_until(is_refused, 60, "the refusal")
    report = next(iter(live_reports(store, "recommend")))
    assert "more than compute" in (report.error or "")
    server.start(models)
    wait_until(stable("search", other), 60, "the server's return")
    for _ in range(5):
        assert stable("search", other)()
    assert not Observed(server.states.get("recommend", {})).available
    agent.close()
