"""What a hold remembers: who held, why, and which version waits for its end."""

from __future__ import annotations

import pytest

from reshelve.errors import DataError, TryAgainError
from reshelve.store import holds
from reshelve.store.objects import ObjectStore


def test_the_newest_version_that_waited_is_told_when_the_hold_is_lifted(store: ObjectStore) -> None:
    holds.remember_waiting(store, "recommend", 3)
    assert holds.read_hold(store, "recommend") is None, "nothing waits where nothing is held"
    holds.hold(store, "recommend", by="watch", reason="broken data", cause="retail 2011-08-30")
    for version in (5, 7, 6):
        holds.remember_waiting(store, "recommend", version)
    with pytest.raises(TryAgainError, match="releases are held: broken data"):
        holds.require_no_hold(store, "recommend")
    lifted = holds.lift(store, "recommend")
    assert lifted is not None and (lifted.waiting, lifted.cause) == (7, "retail 2011-08-30")
    holds.require_no_hold(store, "recommend")


def test_a_hold_that_is_damaged_still_holds(store: ObjectStore) -> None:
    store.put(holds.hold_key("recommend"), b"half a")
    holds.remember_waiting(store, "recommend", 3)
    with pytest.raises(DataError, match="is damaged"):
        holds.require_no_hold(store, "recommend")
    assert holds.lift(store, "recommend") is None
    holds.require_no_hold(store, "recommend")
