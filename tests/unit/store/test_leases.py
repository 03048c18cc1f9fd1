"""Signs of life of releases: what counts as abandoned, by the store's own clock."""

from __future__ import annotations

from typing import Any

import pytest

from reshelve.deployments.leases import abandoned, lease_key, working
from reshelve.deployments.pointer import Pointer
from reshelve.deployments.release_table import Plan, ReleaseState
from reshelve.deployments.signed_entries import entry_key
from reshelve.errors import TryAgainError
from reshelve.processes import wait_until
from reshelve.settings import settings
from reshelve.store.objects import ObjectStore

LEASE = 2.0
VERSION = 20110830001
CANARY = Pointer(
    ranker="recommend", sequence=4, stable=20110829001, canary=VERSION, share=0.1, state=ReleaseState.CANARY, step=1,
    plan=Plan(shares=(0.1,)),
)  # fmt: skip
MOVE = entry_key("recommend", CANARY.sequence)


@pytest.fixture(autouse=True)
def _short(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESHELVE_RELEASE_LEASE_SECONDS", str(LEASE))
    settings.cache_clear()


def age(store: ObjectStore, key: str) -> float:
    """Seconds, by the store's own clock."""
    found = store.get(key)
    assert found is not None, key
    return found.age


def test_a_release_lives_as_long_as_its_process_gives_signs(store: ObjectStore) -> None:
    store.put_json(MOVE, {})
    with pytest.raises(KeyboardInterrupt), working(store, "recommend", VERSION, "test"):
        wait_until(lambda: age(store, MOVE) > 2 * LEASE, 30, "a move older than a lease")
        assert abandoned(store, CANARY) is None
        raise KeyboardInterrupt  # as dead as killed: the last sign stays
    assert abandoned(store, CANARY) is None, "a retry has as long as a lease"
    wait_until(lambda: abandoned(store, CANARY) is not None, 30, "the end of the lease")
    quiet = abandoned(store, CANARY)
    assert quiet is not None and quiet > LEASE


def test_a_release_that_ended_in_order_leaves_no_sign(store: ObjectStore) -> None:
    with working(store, "recommend", VERSION, "test"):
        assert store.exists(lease_key("recommend", VERSION))
    assert not store.exists(lease_key("recommend", VERSION))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"canary": None, "state": ReleaseState.IDLE, "share": 0.0}, id="nothing under way"),
        pytest.param({"held": "too few requests"}, id="held"),
        pytest.param({"state": ReleaseState.APPROVAL}, id="waits for a person"),
    ],
)
def test_what_nobody_works_on_on_purpose_is_not_abandoned(
    store: ObjectStore, changes: dict[str, Any]
) -> None:
    pointer = CANARY.model_copy(update=changes)
    store.put_json(MOVE, {})
    wait_until(lambda: abandoned(store, CANARY) is not None, 30, "a silence that of a canary is abandonment")
    assert abandoned(store, pointer) is None


def test_signs_go_on_after_the_store_was_away(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    put = store.put_json

    def away(key: str, value: Any, **conditions: Any) -> str:
        tried.append(key)
        if len(tried) == 2:
            raise TryAgainError("the object store did not answer")
        return put(key, value, **conditions)

    monkeypatch.setattr(store, "put_json", away)
    with working(store, "recommend", VERSION, "test"):
        wait_until(lambda: len(tried) > 3, 30, "signs after the one that failed")
