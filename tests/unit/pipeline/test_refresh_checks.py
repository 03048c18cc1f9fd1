"""What a refresh looks at beside its gate: who serves, what was taken back, how much room there is, who was forgotten."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.deployed import judged, put_state, put_version

from reshelve.clickstream.forgotten import add_request, user_digest
from reshelve.config.ranker import Ranker
from reshelve.deployments.deployment_log import (
    Entry,
    Offer,
    Pointer,
    Revert,
    Withdraw,
    move_pointer,
)
from reshelve.deployments.release_table import Event
from reshelve.errors import DataError, TryAgainError
from reshelve.examples.changed_catalogue import CatalogueChange
from reshelve.lineage.run import Run
from reshelve.pipeline.publish import publish
from reshelve.pipeline.refresh import _foretold, _require_serves, _taken_back
from reshelve.rollout.left_versions import taken_back
from reshelve.store.objects import ObjectStore
from reshelve.store.uploads import upload
from reshelve.store.versions import list_versions, require_manifest

V1, V2, V3 = 20110830001, 20110830002, 20110831001
RANKER = {"name": "shelf", "title": "A shelf", "kind": "search", "data": {"source": "shop"}, "gates": {"metric": "map@5"}}  # fmt: skip
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


def test_the_disk_has_to_hold_both_versions_and_twice_what_the_one_before_is_made_of(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The version has 1 byte and becomes no larger, so does the one beside it; of its stages 1,000 bytes are read, and no others."""
    night = "shelf/2011-08-30/aaaaaaaaaaaa"
    store.put(f"runs/{night}/train/weights.safetensors", b"w" * 700)
    store.put(f"runs/{night}/blend/blend.safetensors", b"b" * 300)
    store.put(f"runs/{night}/train/log.txt", b"l" * 5000)
    made_of = {"train/weights.safetensors": "0" * 64, "blend/blend.safetensors": "0" * 64}
    lineage = {
        "partition": "2011-08-30",
        "run": night,
        "spec_digest": "d",
        "code_version": "c",
        "made_of": made_of,
    }
    put_version(store, "shelf", V1, lineage=lineage)
    parent = require_manifest(store, "shelf", V1)
    change = CatalogueChange.of(["a"], ["mug"], [1], {"a": "cup"}, by_demand=True)
    ranker = Ranker.model_validate(RANKER)
    run = Run(ranker, date(2011, 8, 30), store, tmp_path / "work", begun="bbbbbbbbbbbb")
    free = 2001
    monkeypatch.setattr(
        "reshelve.pipeline.refresh.shutil.disk_usage", lambda path: SimpleNamespace(free=free)
    )
    with pytest.raises(TryAgainError, match="takes some 2,002 bytes of work"):
        _foretold(run, parent, change)
    free = 2002
    assert _foretold(run, parent, change) == 1
    free = 1001
    copy = run.stage("parent").directory / "train" / "weights.safetensors"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(b"w" * 1001)
    assert _foretold(run, parent, change) == 1, "what an earlier try has brought takes no room again"


def test_who_is_forgotten_while_a_version_is_sent_keeps_it_from_being_published(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On another machine nothing tells `forget` of a refresh under way: it is the refresh that looks, after its upload."""
    day = date(2011, 8, 30)
    run = Run(Ranker.model_validate(RANKER), day, store, tmp_path / "work", begun="bbbbbbbbbbbb")
    packaged = run.stage("package").directory / "version"
    packaged.mkdir()
    (packaged / "saved_model.pb").write_bytes(b"graph")
    examples = {"verdicts": {str(day): "x"}, "left_out": [], "forgotten": ""}
    results: dict[str, dict[str, Any]] = {"package": {"bytes": 5}, "examples": examples, "train": {}}
    for name, result in results.items():
        run.stage(name).commit(result)
    run.stage("gate").commit(judged(run, {"verdict": "promote"}))

    def sent_slowly(*given: Any) -> int:
        add_request(store, "shop", "anna", {user_digest("anna")}, [day], looked=True)
        return upload(*given)

    with monkeypatch.context() as slow, pytest.raises(DataError, match="asked to forget somebody"):
        slow.setattr("reshelve.pipeline.publish.upload", sent_slowly)
        publish(run)
    assert list_versions(store, "shelf") == []
