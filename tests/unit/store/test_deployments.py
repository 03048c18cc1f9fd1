"""The deployment log and the pointer, on a real object store, with movers that race and movers that die."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from reshelve.errors import ConfigurationError, DataError, ReshelveError, TryAgainError
from reshelve.store import deployments
from reshelve.store.deployments import (
    Change,
    Entry,
    Offer,
    Pointer,
    Promote,
    Revert,
    Withdraw,
    move_pointer,
    read_log,
    read_pointer,
    settle,
)
from reshelve.store.objects import ObjectStore
from reshelve.store.signatures import signed, signing_key

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
        store.put_json(f"models/{ranker}/{version}/manifest.json", signed(manifest, signing_key()))


def move(store: ObjectStore, change: Change, ranker: str = "recommend") -> Pointer:
    return move_pointer(store, ranker, change, by="anna", reason="test")


def move_and_die(store: ObjectStore, change: Change, ranker: str = "recommend") -> None:
    """What a mover killed between the log entry and the pointer leaves behind."""
    pointer = settle(store, ranker) or Pointer(ranker=ranker)
    wanted = change.apply(pointer).model_copy(update={"sequence": pointer.sequence + 1, "by": "dead"})
    entry = Entry(sequence=wanted.sequence, action=change.action, pointer=wanted)
    store.put_json(
        f"deployments/{ranker}/log/{wanted.sequence:08d}.json", entry.model_dump(mode="json"), if_absent=True
    )


def test_a_release_is_two_entries_and_keeps_the_way_back(store: ObjectStore) -> None:
    publish_manifests(store)
    for version in (ONE, TWO):
        move(store, Offer(version))
        move(store, Promote(version))
    pointer = read_pointer(store, "recommend")
    assert pointer is not None
    assert (pointer.sequence, pointer.stable, pointer.previous, pointer.canary) == (4, TWO, ONE, None)
    assert pointer.by == "anna" and pointer.moved_at is not None
    assert [entry.action for entry in read_log(store, "recommend")] == [
        "offer",
        "promote",
        "offer",
        "promote",
    ]


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


def test_a_rollback_wins_over_a_release_under_way(store: ObjectStore) -> None:
    publish_manifests(store)
    for version in (ONE, TWO):
        move(store, Revert(version))
    move(store, Offer(THREE))
    move(store, Revert(ONE))
    with pytest.raises(TryAgainError, match=f"{THREE} is not being released any more"):
        move(store, Promote(THREE))
    pointer = read_pointer(store, "recommend")
    assert pointer is not None and (pointer.stable, pointer.previous, pointer.canary) == (ONE, TWO, None)


def test_only_published_versions_can_serve(store: ObjectStore) -> None:
    publish_manifests(store)
    for change in (Offer(NEVER), Revert(NEVER)):
        with pytest.raises(DataError, match="is not published"):
            move(store, change)
    assert read_log(store, "recommend") == []


def test_a_move_needs_a_name(store: ObjectStore) -> None:
    with pytest.raises(ConfigurationError, match="--by"):
        move_pointer(store, "recommend", Offer(ONE), by="", reason="")


def test_the_next_mover_finishes_what_a_killed_one_began(store: ObjectStore) -> None:
    publish_manifests(store)
    move_and_die(store, Revert(ONE))
    assert read_pointer(store, "recommend") is None
    assert move(store, Offer(TWO)).sequence == 2
    pointer = read_pointer(store, "recommend")
    assert pointer is not None and (pointer.stable, pointer.canary) == (ONE, TWO)


def test_a_lost_pointer_is_rebuilt_from_the_log(store: ObjectStore) -> None:
    publish_manifests(store)
    for version in (ONE, TWO, THREE):
        move(store, Revert(version))
    before = read_pointer(store, "recommend")
    store.delete(["deployments/recommend/pointer.json"])
    assert settle(store, "recommend") == before == read_pointer(store, "recommend")


def test_a_damaged_pointer_is_named(store: ObjectStore) -> None:
    store.put("deployments/recommend/pointer.json", b"{")
    with pytest.raises(DataError, match=r"deployments/recommend/pointer\.json is damaged"):
        read_pointer(store, "recommend")


def test_racing_movers_are_ordered_and_none_is_lost(store: ObjectStore) -> None:
    publish_manifests(store)
    wanted = [ONE, TWO, THREE, ONE, TWO, THREE]

    def revert(version: int) -> Pointer:
        return move(store, Revert(version))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(revert, wanted))
    log = read_log(store, "recommend")
    assert [entry.sequence for entry in log] == list(range(1, len(log) + 1))
    assert settle(store, "recommend") == log[-1].pointer
    for before, after in itertools.pairwise(log):
        assert after.pointer.previous == before.pointer.stable


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
_changes = st.one_of(st.builds(kind, _version) for kind in (Offer, Promote, Withdraw, Revert))


def machine(store: ObjectStore) -> type[RuleBasedStateMachine]:
    """Any order of moves, deaths between the two writes, and movers that are refused."""

    class Deployment(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.ranker = f"r{next(_numbers)}"
            publish_manifests(store, self.ranker)
            self.state = Pointer(ranker=self.ranker)

        @rule(change=_changes)
        def move(self, change: Change) -> None:
            try:
                wanted = change.apply(self.state)
            except TryAgainError:
                with pytest.raises(TryAgainError):
                    move(store, change, self.ranker)
                return
            moved = move(store, change, self.ranker)
            assert moved.sequence == self.state.sequence + (wanted != self.state)
            assert read_pointer(store, self.ranker) in (moved, None)
            self.state = moved

        @rule(change=_changes)
        def die_between_the_writes(self, change: Change) -> None:
            try:
                wanted = change.apply(self.state)
            except TryAgainError:
                return
            if wanted != self.state:
                move_and_die(store, change, self.ranker)
                self.state = read_log(store, self.ranker)[-1].pointer

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
            assert [entry.sequence for entry in log] == list(range(1, len(log) + 1))
            stable: list[int] = []
            for entry in log:
                if entry.pointer.stable is not None and [entry.pointer.stable] != stable[-1:]:
                    stable.append(entry.pointer.stable)
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
    move(store, Offer(ONE, share=0.1))
    assert set(store.get_json(deployments.pointer_key("recommend"))) == {
        "ranker", "sequence", "stable", "previous", "canary", "share", "moved_at", "by", "reason",
    }  # fmt: skip
