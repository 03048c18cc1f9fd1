"""Where a ranker file asks for another person, who requested a release does not approve it: on a real object store."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from tests.deployed import put_entry, put_version

from reshelve.config.ranker import Ranker
from reshelve.deployments import freeze
from reshelve.deployments.deployment_log import (
    Advance,
    Entry,
    Offer,
    Pointer,
    Promote,
    Withdraw,
    log_problem,
    move_pointer,
    read_log,
    read_pointer,
)
from reshelve.deployments.release_table import Event, Plan, ReleaseState
from reshelve.deployments.verified_log import VerifiedLog
from reshelve.deployments.vouching import vouch
from reshelve.errors import ConfigurationError, TryAgainError
from reshelve.pipeline.references import load_ranker
from reshelve.protocol.reports import Report, Serving, write_report
from reshelve.rollout import fleet
from reshelve.rollout.approvers import requester
from reshelve.rollout.release import approve, release
from reshelve.store.objects import ObjectStore
from reshelve.store.roles import Role
from reshelve.store.signatures import key_name, signing_key, trusted_keys_path
from reshelve.store.trusted_keys import write_public

ONE, TWO = 20110828001, 20110829001
NAME = "recommend"


@pytest.fixture
def ranker() -> Ranker:
    return load_ranker(NAME).with_values({"release.approval": "another_person", "release.ready_seconds": 5})


@pytest.fixture
def shop(store: ObjectStore, make_stable: Any, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """One is stable, two is published. No agent loads anything."""
    for version in (ONE, TWO):
        put_version(store, NAME, version)
    make_stable(store, NAME, ONE)
    monkeypatch.setattr(fleet, "_LABEL_SECONDS", 0)
    return store


def now(store: ObjectStore) -> Pointer:
    pointer = read_pointer(store, NAME)
    assert pointer is not None
    return pointer


def waits(store: ObjectStore, requested_by: str) -> Pointer:
    """The release of two, requested by somebody, waits for another person."""
    plan = Plan(approval=True, another_person=True, requested_by=requested_by)
    move_pointer(store, NAME, Offer(TWO, plan), by=requested_by or "scheduled", reason="")
    move_pointer(store, NAME, Advance(TWO, Event.LOADED, ReleaseState.LOADING), by="night", reason="")
    return move_pointer(store, NAME, Advance(TWO, Event.PROBED, ReleaseState.PROBING), by="night", reason="")


def agent_serves(store: ObjectStore, version: int) -> None:
    serving = Serving(stable=version, available=(version,))
    report = Report(agent="a", server="h:1", at=datetime.now(UTC), sequence=999, serving=serving)
    write_report(store, NAME, report)


def name_the_persons_key(name: str) -> None:
    public = signing_key(Role.PERSON).public_key()
    (trusted_keys_path() / f"{key_name(public)}.pem").write_bytes(write_public(public, Role.PERSON, name))


@pytest.mark.parametrize("user", ["anna", "Anna", " ANNA "])
def test_who_requested_does_not_approve(shop: ObjectStore, ranker: Ranker, user: str) -> None:
    asked = waits(shop, "anna")
    with pytest.raises(ConfigurationError, match="requested the release of version 20110829001"):
        approve(ranker, TWO, by="ben", user=user)
    assert now(shop) == asked
    agent_serves(shop, TWO)
    assert approve(ranker, TWO, by="whatever", user="ben")["state"] == "promoted"
    (approved,) = [entry for entry in read_log(shop, NAME) if entry.action == "approve"][-1:]
    assert approved.pointer.by == "ben", "the log has who Airflow says it was"


@pytest.mark.parametrize("user", ["", None], ids=["nobody is logged in", "a shell with a key without a name"])
def test_nobody_known_approves_nothing_that_asks_for_another_person(
    shop: ObjectStore, ranker: Ranker, user: str | None
) -> None:
    for requested_by in ("anna", ""):
        asked = waits(shop, requested_by)
        with pytest.raises(ConfigurationError, match="it is not known who approves"):
            approve(ranker, TWO, by="ben", user=user)
        assert now(shop) == asked
        move_pointer(shop, NAME, Withdraw(TWO), by="test", reason="")


def test_in_a_shell_the_keys_name_counts_and_not_what_was_typed(shop: ObjectStore, ranker: Ranker) -> None:
    name_the_persons_key("Anna")
    assert requester(None, "ben") == "Anna"
    asked = waits(shop, "anna")
    with pytest.raises(ConfigurationError, match="Anna requested the release"):
        approve(ranker, TWO, by="ben")
    assert now(shop) == asked
    name_the_persons_key("ben")
    agent_serves(shop, TWO)
    assert approve(ranker, TWO, by="anna")["state"] == "promoted"
    assert [entry.pointer.by for entry in read_log(shop, NAME) if entry.action == "approve"][-1] == "ben"


def test_what_a_schedule_requested_anybody_approves(shop: ObjectStore, ranker: Ranker) -> None:
    assert requester("", "scheduled__2011-08-30") == ""
    waits(shop, "")
    agent_serves(shop, TWO)
    assert approve(ranker, TWO, by="anna", user="anna")["state"] == "promoted"


def test_a_release_records_who_requested_it_where_it_matters(shop: ObjectStore, ranker: Ranker) -> None:
    agent_serves(shop, ONE)
    plain = ranker.with_values({"release.approval": True})
    for rules, expected in ((ranker, "anna"), (plain, "")):
        with pytest.raises(TryAgainError):  # no agent loads it
            release(rules, TWO, by="manual__1", requested_by="anna")
        offer = [entry for entry in read_log(shop, NAME) if entry.action == "offer"][-1]
        assert (offer.pointer.plan.approval, offer.pointer.plan.requested_by) == (True, expected)
        assert offer.pointer.plan.another_person is bool(expected)


def test_who_requested_what_waits_for_a_freeze_is_remembered(shop: ObjectStore, ranker: Ranker) -> None:
    freeze.hold(shop, NAME, by="watch", reason="broken data", cause="retail")
    for person in ("anna", "ben"):
        with pytest.raises(TryAgainError, match="frozen"):
            release(ranker, TWO, by="manual__1", requested_by=person)
    lifted = freeze.lift(shop, NAME)
    assert lifted is not None and (lifted.waiting, lifted.requested_by) == (TWO, "anna")


def test_a_log_in_which_the_requester_approves_is_followed_by_nobody(shop: ObjectStore) -> None:
    """With all keys, and no code of ours in the way: by who follows it, and by who looks for the first time."""
    follows = VerifiedLog(shop, NAME, None)
    asked = waits(shop, "anna")
    assert follows.look() == asked
    ready = asked.model_copy(
        update={"sequence": asked.sequence + 1, "state": ReleaseState.READY, "by": "anna", "reason": ""}
    )
    put_entry(shop, Entry(sequence=ready.sequence, action=Event.APPROVE, pointer=ready))
    for log in (follows, VerifiedLog(shop, NAME, None)):
        assert log.look() == asked and "another person has to approve it" in log.problem
    assert "another person has to approve it" in log_problem(shop, NAME)

    vouch(shop, NAME, ready.sequence, by="anna", reason="all is well")
    with pytest.raises(ConfigurationError, match="anna, who requested this release, let it go on"):
        move_pointer(shop, NAME, Promote(TWO), by="night", reason="")
    assert now(shop).stable == ONE
    vouch(shop, NAME, now(shop).sequence, by="ben", reason="I have looked")
    assert move_pointer(shop, NAME, Promote(TWO), by="night", reason="").stable == TWO


def test_an_approval_by_itself_is_refused_where_a_log_begins_with_it(shop: ObjectStore) -> None:
    """What was before it need not be there: it says itself who requested and who approves."""
    asked = waits(shop, "anna")
    ready = asked.model_copy(
        update={"sequence": asked.sequence + 1, "state": ReleaseState.READY, "by": "anna", "reason": ""}
    )
    put_entry(shop, Entry(sequence=ready.sequence, action=Event.APPROVE, pointer=ready))
    shop.delete([key for key, _ in shop.list(f"deployments/{NAME}/log/")][:-1])
    begins = VerifiedLog(shop, NAME, None)
    assert begins.look() is None and "another person has to approve it" in begins.problem
