"""The deployment log and the pointer, on a real object store, with movers that race and movers that die."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from tests.deployed import put_entry

from reshelve.deployments import deployment_log
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
    log_problem,
    move_pointer,
    pointer_key,
    problems,
    read_log,
    read_pointer,
    settle,
    step_began,
)
from reshelve.deployments.release_table import ACTIVE, TABLE, Event, Plan, ReleaseState
from reshelve.errors import ConfigurationError, DataError, ReshelveError, TryAgainError
from reshelve.store.objects import ObjectStore
from reshelve.store.verdicts import signed_manifest

ONE, TWO, THREE, NEVER = 20110828001, 20110829001, 20110830001, 20110831001


def publish_manifests(store: ObjectStore, ranker: str = "recommend") -> None:
    for version in (ONE, TWO, THREE):
        manifest = {
            "ranker": ranker,
            "version": version,
            "kind": "next_item",
            "created_at": "2011-08-31T03:00:00Z",
            "files": {"saved_model.pb": {"sha256": "0" * 64, "size": 1}},
            "lineage": {"partition": "2011-08-30", "run": "r", "spec_digest": "d", "code_version": "c"},
            "gate": {"verdict": "promote"},
        }
        store.put_json(f"models/{ranker}/{version}/manifest.json", signed_manifest(manifest))


def move(store: ObjectStore, change: Change, ranker: str = "recommend") -> Pointer:
    return move_pointer(store, ranker, change, by="anna", reason="test")


def move_and_die(store: ObjectStore, change: Change, ranker: str = "recommend") -> None:
    """What a mover killed between the log entry and the pointer leaves behind."""
    pointer = settle(store, ranker) or Pointer(ranker=ranker)
    wanted = change.apply(pointer).model_copy(update={"sequence": pointer.sequence + 1, "by": "dead"})
    wanted = wanted.model_copy(update={"moved_at": datetime.now(UTC)})
    put_entry(store, Entry(sequence=wanted.sequence, action=change.action, pointer=wanted))


MakeStable = Callable[..., Pointer]
LOADED, PROBED = (Event.LOADED, ReleaseState.LOADING), (Event.PROBED, ReleaseState.PROBING)


def test_a_release_is_an_entry_per_state_and_keeps_the_way_back(
    store: ObjectStore, make_stable: MakeStable
) -> None:
    publish_manifests(store)
    for version in (ONE, TWO):
        make_stable(store, "recommend", version)
    pointer = read_pointer(store, "recommend")
    assert pointer is not None
    assert (pointer.sequence, pointer.stable, pointer.previous, pointer.canary) == (8, TWO, ONE, None)
    assert pointer.served == (ONE, TWO) and pointer.moved_at is not None
    log = read_log(store, "recommend")
    assert [entry.action for entry in log] == ["offer", "loaded", "probed", "promote"] * 2
    assert problems(log) == []


def test_the_whole_way_with_shadow_shares_and_a_person(store: ObjectStore) -> None:
    publish_manifests(store)
    plan = Plan(shadow=True, shares=(0.05, 0.5), approval=True)
    move(store, Offer(ONE, plan))
    seen = []
    for event, state, step in (
        (Event.LOADED, ReleaseState.LOADING, 0),
        (Event.PROBED, ReleaseState.PROBING, 0),
        (Event.AGREED, ReleaseState.SHADOW, 0),
        (Event.PASSED, ReleaseState.CANARY, 1),
        (Event.PASSED, ReleaseState.CANARY, 2),
    ):
        found = move(store, Advance(ONE, event, state, step, {"requests": step}))
        seen.append((found.state, found.share))
    assert seen == [
        (ReleaseState.PROBING, 0),
        (ReleaseState.SHADOW, 0),
        (ReleaseState.CANARY, 0.05),
        (ReleaseState.CANARY, 0.5),
        (ReleaseState.APPROVAL, 0.5),
    ]
    with pytest.raises(TryAgainError, match="is not ready"):
        move(store, Promote(ONE))
    assert move(store, Approve(ONE)).state is ReleaseState.READY
    assert move(store, Approve(ONE)).sequence == 7  # twice is once
    assert move(store, Promote(ONE)).stable == ONE
    log = read_log(store, "recommend")
    assert problems(log) == [] and log[4].evidence == {"requests": 1}


def test_a_hold_is_written_down_once_and_is_part_of_its_step(store: ObjectStore) -> None:
    publish_manifests(store)
    move(store, Offer(ONE, Plan(shares=(0.1,))))
    move(store, Advance(ONE, *LOADED))
    began = move(store, Advance(ONE, *PROBED)).sequence
    for text in ("too few requests", "too few requests", "inconclusive"):
        held = move(store, Advance(ONE, Event.HOLD, ReleaseState.CANARY, 1, held=text))
    assert (held.sequence, held.held, held.share) == (began + 2, "inconclusive", 0.1)
    assert step_began(store, held) == began
    assert move(store, Advance(ONE, Event.PASSED, ReleaseState.CANARY, 1)).held == ""
    assert problems(read_log(store, "recommend")) == []


def test_two_processes_that_drive_one_release_do_each_step_once(store: ObjectStore) -> None:
    publish_manifests(store)
    move(store, Offer(ONE))
    way = [Advance(ONE, *LOADED), Advance(ONE, *PROBED), Promote(ONE)]

    def drive(_: int) -> None:
        for change in way:
            move(store, change)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(drive, range(4)))
    assert [entry.action for entry in read_log(store, "recommend")] == [
        "offer",
        "loaded",
        "probed",
        "promote",
    ]


def test_a_log_that_skips_a_state_explains_nothing(store: ObjectStore) -> None:
    publish_manifests(store)
    move(store, Offer(ONE))
    log = read_log(store, "recommend")
    jumped = log[0].pointer.model_copy(
        update={"sequence": 2, "stable": ONE, "canary": None, "state": ReleaseState.IDLE}
    )
    assert problems([*log, Entry(sequence=2, action="promote", pointer=jumped)])


def test_every_state_has_a_way_out_and_every_row_is_reached() -> None:
    for state in ACTIVE:
        leads = {row.event for row in TABLE if row.state is state}
        assert {Event.WITHDRAW, Event.ROLLBACK} < leads, state
    reached = {ReleaseState.IDLE}
    for _ in ReleaseState:
        reached |= {row.then for row in TABLE if row.state in reached}
    assert reached == set(ReleaseState)


def test_nothing_released_is_no_pointer(store: ObjectStore) -> None:
    assert read_pointer(store, "recommend") is None
    assert settle(store, "recommend") is None
    assert read_log(store, "recommend") == []


def test_a_change_that_changes_nothing_makes_no_entry(store: ObjectStore) -> None:
    publish_manifests(store)
    assert move(store, Withdraw(ONE)).sequence == 0
    move(store, Offer(ONE))
    assert move(store, Offer(ONE)).sequence == 1


def test_a_second_release_waits_for_the_first(store: ObjectStore) -> None:
    publish_manifests(store)
    move(store, Offer(ONE))
    with pytest.raises(TryAgainError, match=f"version {ONE} is being released"):
        move(store, Offer(TWO))


def test_a_rollback_wins_over_a_release_under_way(store: ObjectStore, make_stable: MakeStable) -> None:
    publish_manifests(store)
    for version in (ONE, TWO):
        make_stable(store, "recommend", version)
    move(store, Offer(THREE))
    move(store, Revert(ONE))
    with pytest.raises(DataError, match=f"{THREE} is no longer being released"):
        move(store, Promote(THREE))
    pointer = read_pointer(store, "recommend")
    assert pointer is not None and (pointer.stable, pointer.previous, pointer.canary) == (ONE, TWO, None)


def test_only_published_versions_can_serve(store: ObjectStore) -> None:
    publish_manifests(store)
    with pytest.raises(DataError, match="is not published"):
        move(store, Offer(NEVER))
    for version in (NEVER, ONE):
        with pytest.raises(DataError, match="was never stable"):
            move(store, Revert(version))
    assert read_log(store, "recommend") == []


def test_a_move_needs_a_name(store: ObjectStore) -> None:
    with pytest.raises(ConfigurationError, match="--by"):
        move_pointer(store, "recommend", Offer(ONE), by="", reason="")


def test_the_next_mover_finishes_what_a_killed_one_began(store: ObjectStore) -> None:
    publish_manifests(store)
    move_and_die(store, Offer(ONE))
    found = read_pointer(store, "recommend")
    assert found is not None and found.canary == ONE and not store.exists(pointer_key("recommend"))
    assert move(store, Advance(ONE, *LOADED)).sequence == 2
    pointer = read_pointer(store, "recommend")
    assert pointer is not None and (pointer.state, pointer.canary) == (ReleaseState.PROBING, ONE)


def test_a_lost_pointer_is_rebuilt_from_the_log(store: ObjectStore, make_stable: MakeStable) -> None:
    publish_manifests(store)
    for version in (ONE, TWO, THREE):
        make_stable(store, "recommend", version)
    before = read_pointer(store, "recommend")
    store.delete(["deployments/recommend/pointer.json"])
    assert settle(store, "recommend") == before == read_pointer(store, "recommend")


def test_a_damaged_pointer_is_named(store: ObjectStore) -> None:
    store.put("deployments/recommend/pointer.json", b"{")
    with pytest.raises(DataError, match=r"deployments/recommend/pointer\.json is damaged"):
        read_pointer(store, "recommend")
    publish_manifests(store)
    moved = move(store, Offer(ONE))  # there is no log: it begins here, and the object is written anew
    assert read_pointer(store, "recommend") == moved
    store.put("deployments/recommend/pointer.json", b"{")
    assert read_pointer(store, "recommend") == moved, "the log says what serves"
    assert log_problem(store, "recommend") == "deployments/recommend/pointer.json is damaged"
    assert settle(store, "recommend") == moved and log_problem(store, "recommend") == ""


def test_racing_movers_are_ordered_and_none_is_lost(store: ObjectStore, make_stable: MakeStable) -> None:
    publish_manifests(store)
    for version in (ONE, TWO, THREE):
        make_stable(store, "recommend", version)
    wanted = [ONE, TWO, THREE, ONE, TWO, THREE]

    def revert(version: int) -> Pointer:
        return move(store, Revert(version))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(revert, wanted))
    log = read_log(store, "recommend")
    assert [entry.sequence for entry in log] == list(range(1, len(log) + 1))
    assert settle(store, "recommend") == log[-1].pointer
    for before, after in itertools.pairwise(log[12:]):
        assert after.pointer.previous == before.pointer.stable
    assert problems(log) == []


def test_only_one_of_two_racing_releases_gets_the_slot(store: ObjectStore) -> None:
    publish_manifests(store)

    def offer(version: int) -> bool:
        try:
            move(store, Offer(version))
        except TryAgainError:
            return False
        return True

    with ThreadPoolExecutor(3) as pool:
        assert sum(pool.map(offer, (ONE, TWO, THREE))) == 1


_numbers = itertools.count()
_version = st.sampled_from((ONE, TWO, THREE))
_plan = st.builds(
    Plan, shadow=st.booleans(), shares=st.sampled_from([(), (0.1,), (0.1, 0.5)]), approval=st.booleans()
)
_way = st.sampled_from([(row.event, row.state) for row in TABLE if row.state is not ReleaseState.IDLE])
_changes = st.one_of(
    st.builds(Offer, _version, _plan),
    st.builds(lambda v, way, step: Advance(v, *way, step), _version, _way, st.integers(0, 2)),
    *(st.builds(kind, _version) for kind in (Approve, Promote, Withdraw, Revert)),
)


def machine(store: ObjectStore) -> type[RuleBasedStateMachine]:
    """Any order of moves, deaths between the two writes, and movers that are refused."""

    class Deployment(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.ranker = f"r{next(_numbers)}"
            publish_manifests(store, self.ranker)
            self.state = Pointer(ranker=self.ranker)

        def forward(self) -> Change | None:
            """What a release does next: histories of pure chance seldom get far."""
            at, version = self.state, self.state.canary
            if version is None:
                return None
            if at.state is ReleaseState.READY:
                return Promote(version)
            if at.state is ReleaseState.APPROVAL:
                return Approve(version)
            events = {
                ReleaseState.LOADING: Event.LOADED,
                ReleaseState.PROBING: Event.PROBED,
                ReleaseState.SHADOW: Event.AGREED,
            }
            return Advance(version, events.get(at.state, Event.PASSED), at.state, at.step)

        @rule(change=_changes)
        def move(self, change: Change) -> None:
            try:
                wanted = change.apply(self.state)
            except ReshelveError as refused:
                with pytest.raises(type(refused)):
                    move(store, change, self.ranker)
                return
            moved = move(store, change, self.ranker)
            assert moved.sequence == self.state.sequence + (wanted != self.state)
            assert read_pointer(store, self.ranker) in (moved, None)
            self.state = moved

        @rule(times=st.integers(1, 5))
        def go_on(self, times: int) -> None:
            for _ in range(times):
                if change := self.forward():
                    self.move(change)

        @rule(change=_changes)
        def die_between_the_writes(self, change: Change) -> None:
            try:
                wanted = change.apply(self.state)
            except ReshelveError:
                return
            if wanted != self.state:
                move_and_die(store, change, self.ranker)
                self.state = read_log(store, self.ranker)[-1].pointer

        @rule()
        def die_going_on(self) -> None:
            if change := self.forward():
                self.die_between_the_writes(change)

        @rule(change=st.sampled_from((Offer(NEVER), Revert(NEVER))))
        def ask_for_a_version_that_is_not_there(self, change: Change) -> None:
            with pytest.raises(ReshelveError):
                move(store, change, self.ranker)

        @invariant()
        def what_serves_makes_sense(self) -> None:
            assert NEVER not in self.state.wanted
            if self.state.stable is not None:
                assert self.state.stable not in (self.state.previous, self.state.canary)
            if self.state.stable is None:
                assert self.state.previous is None

        def teardown(self) -> None:
            log = read_log(store, self.ranker)
            assert problems(log) == []
            stable: list[int] = []
            for entry in log:
                if entry.pointer.stable is not None and [entry.pointer.stable] != stable[-1:]:
                    stable.append(entry.pointer.stable)
                    # Nobody is stable who did not come through the probe of this very release, or was stable before.
                    assert entry.action == Event.PROMOTE or entry.pointer.stable in stable[:-1]
                assert [entry.pointer.previous] == (stable[-2:-1] or [None])
            settled = settle(store, self.ranker)
            assert (settled or Pointer(ranker=self.ranker)).wanted == self.state.wanted
            assert settled == (log[-1].pointer if log else None)

    return Deployment


def test_the_log_explains_the_pointer_whatever_happens(store: ObjectStore) -> None:
    run_state_machine_as_test(
        machine(store),
        settings=settings(
            max_examples=10,
            stateful_step_count=8,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_pointer_is_what_its_readers_expect(store: ObjectStore) -> None:
    publish_manifests(store)
    move(store, Offer(ONE))
    assert set(store.get_json(deployment_log.pointer_key("recommend"))) == {
        "ranker", "sequence", "stable", "previous", "canary", "share", "state", "step", "plan", "held", "served",
        "moved_at", "by", "reason",
    }  # fmt: skip


def test_a_pointer_from_before_there_were_states_is_read() -> None:
    old = {"ranker": "recommend", "sequence": 3, "stable": ONE, "canary": TWO, "share": 0.0}
    found = Pointer.model_validate(old)
    assert (found.state, found.plan, found.way_back) == (ReleaseState.LOADING, Plan(), {ONE})
