"""Any order of moves, copies, loads, crashes and repeats on several hosts: the promises of a release, all of them."""

from __future__ import annotations

from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from reshelve.agent.server_plan import (
    Observed,
    VersionState,
    choose_loads,
    missing,
    must_reload,
    next_entry,
    removable,
)
from reshelve.deployments.deployment_log import (
    Advance,
    Approve,
    Change,
    Entry,
    Offer,
    Pointer,
    Promote,
    Revert,
    Withdraw,
    problems,
)
from reshelve.deployments.release_table import TABLE, Event, Plan
from reshelve.deployments.release_table import ReleaseState as Release
from reshelve.errors import ReshelveError
from reshelve.protocol.model_config import ModelEntry

BASE = Path("/models/recommend")
VERSIONS = (1, 2, 3, 4)
FORGED = 4  # published, and nobody whom an agent trusts signed it: it never verifies on a disk
HOSTS = 2

_version = st.sampled_from(VERSIONS)
_host = st.integers(0, HOSTS - 1)
_plan = st.builds(
    Plan, shadow=st.booleans(), shares=st.sampled_from([(), (0.1,), (0.1, 0.5)]), approval=st.booleans()
)
_way = st.sampled_from([(row.event, row.state) for row in TABLE if row.state is not Release.IDLE])


class Host:
    """A model server after the rules of TensorFlow Serving, with the agent's disk."""

    def __init__(self) -> None:
        self.states: dict[int, VersionState] = {}
        self.labels: dict[str, int] = {}
        self.local: set[int] = set()
        self.seen = Pointer(ranker="recommend")
        self.applied: ModelEntry | None = None

    def observe(self) -> Observed:
        return Observed(dict(self.states), dict(self.labels))

    def copy(self) -> None:
        uncopied = sorted(self.seen.wanted - self.local - {FORGED})
        if uncopied:
            self.local.add(uncopied[0])

    def load(self) -> None:
        for version, state in self.states.items():
            if state is VersionState.LOADING:
                self.states[version] = VersionState.AVAILABLE
                return

    def round(self) -> None:
        """The agent's."""
        observed = self.observe()
        told = self.next(observed)
        if must_reload(told, self.applied, observed):
            self._reload(told)
            self.applied = told
        gone = removable(self.seen, self.observe(), self.applied, frozenset(self.local))
        assert not gone & self.seen.wanted, "files of a wanted version were removed"
        self.local -= gone

    def next(self, observed: Observed) -> ModelEntry | None:
        """What the agent tells the server: what it has, and the version whose turn it is to be loaded."""
        local = frozenset(self.local)
        candidates = [(self.seen, version) for version in missing(self.seen, observed, local)]
        under_way = [(self.seen.ranker, version) for version in observed.loading]
        loads = frozenset(version for _, version in choose_loads(candidates, under_way, ()))
        return next_entry(self.seen, observed, local, BASE, loads)

    def _reload(self, told: ModelEntry | None) -> None:
        versions = told.versions if told else frozenset()
        labels = dict(told.labels) if told else {}
        for version in labels.values():
            assert self.states.get(version) is VersionState.AVAILABLE, (
                "a label on a version that is not loaded"
            )
        self.labels = labels
        for version in versions:
            if self.states.get(version) in (None, VersionState.END):
                self.states[version] = VersionState.LOADING
        for version in set(self.states) - versions:
            self.states[version] = VersionState.END


class Rollout(RuleBasedStateMachine):
    """One ranker, its log, and the hosts that follow its pointer each at their own pace."""

    promoted_twice = 0

    def __init__(self) -> None:
        super().__init__()
        self.log: list[Entry] = []
        self.hosts = [Host() for _ in range(HOSTS)]

    @property
    def pointer(self) -> Pointer:
        return self.log[-1].pointer if self.log else Pointer(ranker="recommend")

    def _move(self, change: Change) -> None:
        try:
            wanted = change.apply(self.pointer)
        except ReshelveError:
            return
        if wanted != self.pointer:
            moved = wanted.model_copy(update={"sequence": self.pointer.sequence + 1})
            self.log.append(Entry(sequence=moved.sequence, action=change.action, pointer=moved))
            before = self.pointer
            assert change.apply(before) == before or change.action in (Event.PASSED, Event.HOLD), (
                f"asked twice, {change} moved twice"
            )

    @rule(version=_version, plan=_plan)
    def offer(self, version: int, plan: Plan) -> None:
        self._move(Offer(version, plan))

    @rule(version=_version, way=_way, step=st.integers(0, 2))
    def anybody_says_anything(self, version: int, way: tuple[Event, Release], step: int) -> None:
        """A process that was asleep for a year wakes up and says what it found; LOADED says an agent, see below."""
        event, state = way
        if event is not Event.LOADED:
            self._move(Advance(version, event, state, step))

    @rule()
    def the_release_goes_on(self) -> None:
        now, version = self.pointer, self.pointer.canary
        if version is None:
            return
        if now.state is Release.LOADING:
            if all(host.labels.get("canary") == version for host in self.hosts):  # what agents report
                self._move(Advance(version, Event.LOADED, now.state))
        elif now.state is Release.READY:
            self._move(Promote(version))
        elif now.state is Release.APPROVAL:
            self._move(Approve(version))
        else:
            events = {Release.PROBING: Event.PROBED, Release.SHADOW: Event.AGREED}
            self._move(Advance(version, events.get(now.state, Event.PASSED), now.state, now.step))

    @rule(version=st.sampled_from((1, 2, 3)), plan=_plan, stops_after=st.integers(1, 12))
    def a_release_gets_some_way(self, version: int, plan: Plan, stops_after: int) -> None:
        """Without this, chance alone seldom promotes two versions."""
        self._move(Offer(version, plan))
        for _ in range(stops_after):
            for number in range(HOSTS):
                self.hosts[number].seen = self.pointer
                self.time_passes(number, 2)
            self.the_release_goes_on()

    @rule(version=_version)
    def somebody_promotes_what_was_just_offered(self, version: int) -> None:
        self._move(Offer(version))
        self._move(Promote(version))

    @rule(version=_version, kind=st.sampled_from((Promote, Withdraw, Revert, Approve)))
    def somebody_asks(self, version: int, kind: type[Promote]) -> None:
        self._move(kind(version))

    @rule(host=_host)
    def an_agent_looks_at_the_pointer(self, host: int) -> None:
        self.hosts[host].seen = self.pointer

    @rule(host=_host, old=st.integers(0, 30))
    def an_old_pointer_is_put_back(self, host: int, old: int) -> None:
        """An agent goes from it to the newest entry (`deployments.newest`)."""
        found = self.log[min(old, len(self.log) - 1)].pointer if self.log else self.pointer
        while found.sequence < self.pointer.sequence:
            found = self.log[found.sequence].pointer
        self.hosts[host].seen = found

    @rule(host=_host, times=st.integers(1, 4))
    def time_passes(self, host: int, times: int) -> None:
        one = self.hosts[host]
        for _ in range(times):
            one.copy()
            one.round()
            one.load()
            one.round()

    @rule(host=_host)
    def a_model_server_dies(self, host: int) -> None:
        self.hosts[host].states, self.hosts[host].labels = {}, {}

    @rule(host=_host)
    def an_agent_dies(self, host: int) -> None:
        self.hosts[host].applied = None
        self.hosts[host].seen = self.pointer

    @rule(host=_host)
    def bytes_change_on_a_disk(self, host: int) -> None:
        one = self.hosts[host]
        if one.local:
            one.local.discard(min(one.local))
            one.applied = None  # the agent finds it at its start

    @invariant()
    def the_log_explains_the_state(self) -> None:
        assert problems(self.log) == []

    @invariant()
    def one_stable_version_that_came_through_a_release(self) -> None:
        now = self.pointer
        assert now.stable is None or now.stable not in (now.canary, now.previous)
        if now.stable is not None:
            assert any(e.action == Event.PROMOTE and e.pointer.stable == now.stable for e in self.log)
        assert FORGED not in (now.stable, now.previous), "a version that no agent could load became stable"

    @invariant()
    def labels_are_on_loaded_and_verified_versions(self) -> None:
        for host in self.hosts:
            assert set(host.labels) <= {"stable", "canary"}
            for version in host.labels.values():
                assert version != FORGED
                assert host.states.get(version) is VersionState.AVAILABLE

    @invariant()
    def the_previous_version_stays_loaded(self) -> None:
        """A host that has the way back on its disk has it loaded, is loading it, or loads what comes before it."""
        for host in self.hosts:
            back, observed = host.seen.previous, host.observe()
            if back not in host.local:
                continue
            told = host.next(observed)
            assert told is not None
            if back in observed.available | observed.loading:
                assert back in told.versions, "the way back would be unloaded"
            else:
                assert told.versions - observed.available, "nobody loads the way back"

    def teardown(self) -> None:
        """Left alone, every host comes to what the pointer says, but for what cannot be loaded."""
        Rollout.promoted_twice += sum(entry.action == Event.PROMOTE for entry in self.log) > 1
        for host in self.hosts:
            host.seen = self.pointer
            for _ in range(20):
                host.copy()
                host.round()
                host.load()
            wanted = self.pointer.wanted - {FORGED}
            assert wanted == host.observe().available
            assert host.labels.get("stable") == self.pointer.stable
            assert host.local == wanted


def test_under_any_history_the_promises_of_a_release_hold() -> None:
    run_state_machine_as_test(
        Rollout, settings=settings(max_examples=150, stateful_step_count=40, deadline=None, derandomize=True)
    )
    assert Rollout.promoted_twice > 20, "the histories do not get far enough to show anything"
