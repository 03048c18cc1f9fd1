"""What a refresh looks at beside its gate: who serves, what was taken back, how much room there is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.deployed import put_state, put_version

from reshelve.deployments.deployment_log import (
    Entry,
    Offer,
    Pointer,
    Revert,
    Withdraw,
    move_pointer,
)
from reshelve.deployments.release_table import Event
from reshelve.errors import TryAgainError
from reshelve.pipeline.refresh import _require_serves, _taken_back
from reshelve.rollout.left_versions import taken_back
from reshelve.store.objects import ObjectStore
from reshelve.store.versions import require_manifest

V1, V2, V3 = 20110830001, 20110830002, 20110831001
MADE = datetime(2011, 8, 31, 3, tzinfo=UTC)


def log(*moves: tuple[str, dict[str, Any]]) -> list[Entry]:
    """An hour between any two."""
    return [
        Entry(
            sequence=number,
            action=action,
            pointer=Pointer.model_validate({
                "ranker": "shelf", "sequence": number, "moved_at": MADE + timedelta(hours=number), "by": "anna", **state,
            }),
        )
        for number, (action, state) in enumerate(moves, 1)
    ]  # fmt: skip


RELEASED = [
    (Event.VOUCH, {"stable": V1}),
    (Event.OFFER, {"stable": V1, "canary": V2, "state": "loading"}),
]
SERVED = [*RELEASED, (Event.PROMOTE, {"stable": V2, "previous": V1})]


@pytest.mark.parametrize(
    ("moves", "by"),
    [
        ([*SERVED, (Event.ROLLBACK, {"stable": V1, "previous": V2})], 4),
        ([*RELEASED, (Event.WITHDRAW, {"stable": V1})], 3),
        ([*RELEASED, (Event.ROLLBACK, {"stable": V3, "previous": V1})], 3),
        ([*SERVED, (Event.ROLLBACK, {"stable": V1, "previous": V2}), (Event.OFFER, {"stable": V1, "canary": V3, "state": "loading"}),
          (Event.WITHDRAW, {"stable": V1})], 4),
        ([*SERVED, (Event.PROMOTE, {"stable": V3, "previous": V2})], None),
        (SERVED, None),
        (RELEASED, None),
        (RELEASED[:1], None),
    ],
    ids=["rolled back", "withdrawn", "gone with a rollback", "rolled back some moves ago", "gave way to a newer one",
         "serves", "is being released", "never released"],
)  # fmt: skip
def test_a_version_was_taken_back_by_a_rollback_or_a_withdrawal(
    moves: list[tuple[str, dict[str, Any]]], by: int | None
) -> None:
    entries = log(*moves)
    read = {entry.sequence: entry for entry in entries}.get
    found = taken_back(entries[-1].pointer, V2, read, made_at=MADE)
    assert (found and found.sequence) == by
    later = entries[-1].pointer.moved_at or MADE
    assert taken_back(entries[-1].pointer, V2, read, made_at=later + timedelta(hours=1)) is None


def test_a_version_that_was_taken_back_is_told_with_who_and_why(store: ObjectStore) -> None:
    for version in (V1, V2):
        put_version(store, "shelf", version)
    put_state(store, Pointer(ranker="shelf", stable=V2, previous=V1))
    assert _taken_back(store, "shelf", V2) == ""
    move_pointer(store, "shelf", Revert(V1), by="anna", reason="titles of last year")
    assert "was taken back (rollback) by anna: titles of last year" in _taken_back(store, "shelf", V2)
    move_pointer(store, "shelf", Offer(V2), by="ben", reason="is right after all")
    assert _taken_back(store, "shelf", V2) == "", "somebody releases it"
    move_pointer(store, "shelf", Withdraw(V2), by="ben", reason="is not")
    assert "(withdraw) by ben: is not" in _taken_back(store, "shelf", V2)


def test_what_serves_has_to_be_what_was_refreshed(store: ObjectStore) -> None:
    for version in (V1, V2):
        put_version(store, "shelf", version)
    parent = require_manifest(store, "shelf", V1)
    with pytest.raises(TryAgainError, match="version None serves"):
        _require_serves(store, parent)
    put_state(store, Pointer(ranker="shelf", stable=V1))
    _require_serves(store, parent)
    put_state(store, Pointer(ranker="shelf", stable=V2, previous=V1))
    with pytest.raises(TryAgainError, match=f"version {V2} serves by now, this has the model of {V1}"):
        _require_serves(store, parent)
