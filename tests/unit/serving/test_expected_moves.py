"""Moves that are bound to what the asker saw: on a real object store, without agents, so that every move ends in 75."""

from __future__ import annotations

from typing import Any

import pytest
from tests.deployed import put_version

from reshelve.config.ranker import Ranker
from reshelve.deployments.deployment_log import (
    Advance,
    MovedError,
    Offer,
    Pointer,
    Withdraw,
    move_pointer,
    read_log,
    read_pointer,
)
from reshelve.deployments.release_table import Event, Plan, ReleaseState
from reshelve.errors import DataError, TryAgainError
from reshelve.pipeline.references import load_ranker
from reshelve.protocol.reports import Report, Serving, write_report
from reshelve.rollout import fleet
from reshelve.rollout.release import approve, release
from reshelve.rollout.roll_back import rollback, withdraw
from reshelve.store.objects import ObjectStore

ONE, TWO, THREE, FOUR = 20110828001, 20110829001, 20110830001, 20110831001
NAME = "recommend"


@pytest.fixture
def ranker() -> Ranker:
    return load_ranker(NAME)


@pytest.fixture
def shop(store: ObjectStore, make_stable: Any, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """Four versions are published; one, two and three were stable, one after the other. Nobody waits for agents."""
    for version in (ONE, TWO, THREE, FOUR):
        put_version(store, NAME, version)
    for version in (ONE, TWO, THREE):
        make_stable(store, NAME, version)
    monkeypatch.setattr(fleet, "_LABEL_SECONDS", 0)
    return store


def now(store: ObjectStore) -> Pointer:
    pointer = read_pointer(store, NAME)
    assert pointer is not None
    return pointer


def to_approval(store: ObjectStore, version: int) -> Pointer:
    """A release of a version that waits for a person."""
    move_pointer(store, NAME, Offer(version, Plan(approval=True)), by="night", reason="test")
    for event, state in ((Event.LOADED, ReleaseState.LOADING), (Event.PROBED, ReleaseState.PROBING)):
        move_pointer(store, NAME, Advance(version, event, state), by="night", reason="test")
    pointer = now(store)
    assert pointer.state is ReleaseState.APPROVAL
    return pointer


def test_a_rollback_is_refused_where_the_pointer_has_moved(shop: ObjectStore, ranker: Ranker) -> None:
    seen = now(shop).sequence
    move_pointer(shop, NAME, Offer(FOUR), by="ben", reason="a new night")
    with pytest.raises(MovedError, match=f"has moved since move {seen}") as refused:
        rollback(ranker.name, to=TWO, by="anna", if_sequence=seen)
    assert f"move {seen + 1}: offer by ben: a new night" in refused.value.detail
    with pytest.raises(MovedError):
        rollback(ranker.name, to=TWO, by="anna", if_sequence=seen, dry_run=True)
    with pytest.raises(MovedError, match="which is before"):
        rollback(ranker.name, to=TWO, by="anna", if_sequence=seen + 7)
    assert (now(shop).stable, now(shop).canary) == (THREE, FOUR)


@pytest.mark.parametrize("bound", [True, False], ids=["with what was seen", "by hand"])
def test_a_retried_rollback_does_not_go_forward_again(shop: ObjectStore, ranker: Ranker, bound: bool) -> None:
    seen = now(shop).sequence if bound else None
    for tries in (1, 2, 3):
        with pytest.raises(TryAgainError, match=f"serving version {TWO} as stable"):
            rollback(ranker.name, to=None, by="anna", resume=tries > 1, if_sequence=seen)
        assert (now(shop).stable, now(shop).previous) == (TWO, THREE)
    assert [entry.action for entry in read_log(shop, NAME)].count("rollback") == 1


def test_a_rollback_of_somebody_else_is_no_first_try(shop: ObjectStore, ranker: Ranker) -> None:
    with pytest.raises(TryAgainError):
        rollback(ranker.name, to=None, by="ben")
    with pytest.raises(TryAgainError, match=f"serving version {THREE} as stable"):
        rollback(ranker.name, to=None, by="anna", resume=True)


def test_an_approval_is_of_the_very_release_that_was_seen(shop: ObjectStore, ranker: Ranker) -> None:
    seen = to_approval(shop, FOUR).sequence
    move_pointer(shop, NAME, Withdraw(FOUR), by="ben", reason="it looks wrong")
    with pytest.raises(MovedError, match="has moved"):
        approve(ranker, FOUR, by="anna", if_sequence=seen)
    again = to_approval(shop, FOUR).sequence  # the same version, another release
    with pytest.raises(MovedError, match=f"since move {seen}"):
        approve(ranker, FOUR, by="anna", if_sequence=seen)
    assert now(shop).stable == THREE
    with pytest.raises(TryAgainError):  # no agents: the move is made before they are waited for
        approve(ranker, FOUR, by="anna", if_sequence=again)
    assert read_log(shop, NAME)[again].action == "approve"


def test_an_approval_that_was_cut_off_is_finished_by_its_retry(shop: ObjectStore, ranker: Ranker) -> None:
    seen = to_approval(shop, FOUR).sequence
    with pytest.raises(TryAgainError, match="no serving agent"):
        approve(ranker, FOUR, by="anna", if_sequence=seen)
    assert now(shop).state is ReleaseState.READY
    write_agent(shop, FOUR)
    assert approve(ranker, FOUR, by="anna", if_sequence=seen)["state"] == "promoted"
    assert now(shop).stable == FOUR


def test_what_is_taken_back_after_the_approval_is_not_offered_again(
    shop: ObjectStore, ranker: Ranker
) -> None:
    seen = to_approval(shop, FOUR).sequence
    with pytest.raises(TryAgainError, match="no serving agent"):
        approve(ranker, FOUR, by="anna", if_sequence=seen)
    withdraw(ranker.name, version=FOUR, by="ben", reason="stop")
    write_agent(shop, FOUR)
    for if_sequence in (seen, None):
        with pytest.raises(DataError):
            approve(ranker, FOUR, by="anna", if_sequence=if_sequence)
    assert now(shop).canary is None and now(shop).stable == THREE


def test_a_withdrawal_leaves_another_release_alone(shop: ObjectStore, ranker: Ranker) -> None:
    seen = to_approval(shop, FOUR).sequence
    move_pointer(shop, NAME, Withdraw(FOUR), by="ben", reason="test")
    assert withdraw(ranker.name, version=FOUR, by="anna", if_sequence=seen)["state"] == "unchanged"
    to_approval(shop, FOUR)
    with pytest.raises(MovedError):
        withdraw(ranker.name, version=FOUR, by="anna", if_sequence=seen)
    assert now(shop).canary == FOUR


def test_a_release_begins_only_where_nobody_moved(shop: ObjectStore, ranker: Ranker) -> None:
    write_agent(shop, THREE)
    seen = now(shop).sequence
    move_pointer(shop, NAME, Offer(TWO), by="ben", reason="test")
    move_pointer(shop, NAME, Withdraw(TWO), by="ben", reason="test")
    with pytest.raises(MovedError, match="has moved"):
        release(ranker, FOUR, by="anna", if_sequence=seen)
    assert now(shop).canary is None


def test_a_retried_release_goes_on_with_its_own_moves(shop: ObjectStore, ranker: Ranker) -> None:
    write_agent(shop, THREE)
    seen = now(shop).sequence
    impatient = ranker.with_values({"release.ready_seconds": 5})
    for tries in (1, 2):
        with pytest.raises(TryAgainError, match="loading version"):
            release(impatient, FOUR, by="anna", if_sequence=seen, resume=tries > 1)
    assert [entry.action for entry in read_log(shop, NAME)[seen:]] == ["offer", "withdraw"] * 2
    withdrawn = now(shop).sequence
    move_pointer(shop, NAME, Offer(TWO), by="ben", reason="test")
    move_pointer(shop, NAME, Withdraw(TWO), by="ben", reason="test")
    with pytest.raises(MovedError, match="has moved"):
        release(impatient, FOUR, by="anna", if_sequence=seen, resume=True)
    assert now(shop).sequence == withdrawn + 2


def write_agent(store: ObjectStore, stable: int) -> None:
    """A report of an agent that has seen every move to come, and serves a version."""
    from datetime import UTC, datetime

    serving = Serving(stable=stable, available=(stable,))
    write_report(
        store, NAME,
        Report(agent="a", server="127.0.0.1:1", at=datetime.now(UTC), sequence=99, serving=serving),
    )  # fmt: skip
