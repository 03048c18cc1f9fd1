"""What a hold remembers: who held, why, and which version waits for its end."""

from __future__ import annotations

import pytest

from reshelve.deployments import freeze
from reshelve.errors import DataError, TryAgainError
from reshelve.store.objects import ObjectStore


def test_the_newest_version_that_waited_is_told_when_the_hold_is_lifted(store: ObjectStore) -> None:
    freeze.remember_waiting(store, "recommend", 3)
    assert freeze.read_hold(store, "recommend") is None, "nothing waits where nothing is held"
    freeze.hold(store, "recommend", by="watch", reason="broken data", cause="retail 2011-08-30")
    for version in (5, 7, 6):
        freeze.remember_waiting(store, "recommend", version)
    with pytest.raises(TryAgainError, match="releases are frozen: broken data"):
        freeze.require_no_hold(store, "recommend")
    lifted = freeze.lift(store, "recommend")
    assert lifted is not None and (lifted.waiting, lifted.cause) == (7, "retail 2011-08-30")
    freeze.require_no_hold(store, "recommend")


def test_a_hold_that_is_damaged_still_holds(store: ObjectStore) -> None:
    store.put(freeze.hold_key("recommend"), b"half a")
    freeze.remember_waiting(store, "recommend", 3)
    with pytest.raises(DataError, match="is damaged"):
        freeze.require_no_hold(store, "recommend")
    assert freeze.lift(store, "recommend") is None
    freeze.require_no_hold(store, "recommend")
