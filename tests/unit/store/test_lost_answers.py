"""Writes whose answer was lost, and stores that say "not now": nobody loses what they won, nobody wins twice."""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.misbehaving import Misbehaving, Request, conditional_on, loses_answers, says

from reshelve.deployments import deployment_log, freeze
from reshelve.deployments.deployment_log import Offer, move_pointer, read_log, read_pointer
from reshelve.errors import TryAgainError
from reshelve.lineage.run import Run
from reshelve.pipeline.publish import publish
from reshelve.store import puts, uploads, versions
from reshelve.store.conditions import require_conditional_writes
from reshelve.store.objects import ObjectStore, PreconditionFailedError
from reshelve.store.uploads import Upload, upload

PART_BYTES = 5 * 1024 * 1024
PUBLISH = ("publish", "--ranker", "recommend", "--partition", "2011-08-30", "--json")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(puts, "_FIRST_PAUSE", 0.001)


def test_a_conflict_is_tried_again(unruly: Misbehaving, through: ObjectStore) -> None:
    conflict = unruly.add(says(409, "ConditionalRequestConflict", conditional_on("once"), times=3))
    through.put("a/b/once", b"1", if_absent=True)
    assert conflict.seen == 3


def test_a_conflict_that_stays_says_try_again(unruly: Misbehaving, through: ObjectStore) -> None:
    unruly.add(says(409, "ConditionalRequestConflict", conditional_on("once")))
    with pytest.raises(TryAgainError, match="did not answer as expected"):
        through.put("a/b/once", b"1", if_absent=True)


@pytest.mark.parametrize("condition", ["if_absent", "if_match"])
def test_a_write_whose_answer_was_lost_is_known_again(
    unruly: Misbehaving, through: ObjectStore, store: ObjectStore, condition: str
) -> None:
    before = None if condition == "if_absent" else store.put("a/b/pointer", b"0")
    lost = unruly.add(loses_answers(conditional_on("pointer")))
    etag = through.put("a/b/pointer", b"1", if_absent=before is None, if_match=before)
    assert lost.seen == 1
    assert store.etag("a/b/pointer") == etag


def test_whoever_cannot_tell_who_won_tries_again(
    unruly: Misbehaving, through: ObjectStore, store: ObjectStore
) -> None:
    require_conditional_writes(through, "a/b/")
    unruly.add(loses_answers(conditional_on("pointer")))
    unruly.add(says(503, "SlowDown", lambda request: request.method == "HEAD"))
    with pytest.raises(TryAgainError):
        through.put("a/b/pointer", b"1", if_absent=True)
    assert store.exists("a/b/pointer")


def test_equal_bytes_are_not_one_write(unruly: Misbehaving, through: ObjectStore, store: ObjectStore) -> None:
    """Another writer was first with the very same bytes: whose answer was lost did not win by that."""
    store.put("a/b/claim", b"same", if_absent=True)
    unruly.add(loses_answers(conditional_on("claim")))
    with pytest.raises(PreconditionFailedError):
        through.put("a/b/claim", b"same", if_absent=True)


def test_of_many_writers_of_equal_bytes_one_wins_though_answers_are_lost(
    unruly: Misbehaving, through: ObjectStore
) -> None:
    unruly.add(loses_answers(conditional_on("claim"), times=5))

    def claim(_: int) -> bool:
        try:
            through.put("a/b/claim", b"same", if_absent=True)
        except PreconditionFailedError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(claim, range(8))) == 1


def test_a_move_of_the_pointer_survives_every_lost_answer(
    unruly: Misbehaving, through: ObjectStore, store: ObjectStore, packaged: Run
) -> None:
    version = publish(packaged)["version"]
    unruly.add(loses_answers(conditional_on("/log/")))
    unruly.add(loses_answers(conditional_on("pointer.json")))
    moved = move_pointer(through, "recommend", Offer(version), by="test", reason="")
    assert [entry.sequence for entry in read_log(store, "recommend")] == [1]
    assert read_pointer(store, "recommend") == moved
    unruly.add(loses_answers(conditional_on("/log/")))
    unruly.add(loses_answers(conditional_on("pointer.json")))
    back = move_pointer(through, "recommend", deployment_log.Withdraw(version), by="test", reason="")
    assert read_pointer(store, "recommend") == back
    assert len(read_log(store, "recommend")) == 2


def test_a_hold_survives_a_lost_answer(unruly: Misbehaving, through: ObjectStore) -> None:
    unruly.add(loses_answers(conditional_on("hold.json")))
    made = freeze.hold(through, "recommend", by="anna", reason="an audit")
    assert freeze.read_hold(through, "recommend") == made


@pytest.mark.slow
@pytest.mark.parametrize("key", ["claim.json", "manifest.json"])
@pytest.mark.parametrize("trouble", ["conflict", "lost"])
def test_a_night_is_published_through_conflicts_and_lost_answers(
    unruly: Misbehaving, store: ObjectStore, packaged: Run, reshelve: Any, key: str, trouble: str
) -> None:
    fault = unruly.add(
        says(409, "ConditionalRequestConflict", conditional_on(key), times=2)
        if trouble == "conflict"
        else loses_answers(conditional_on(key))
    )
    done = reshelve(*PUBLISH)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["version"] == 20110830001
    assert fault.seen >= 1
    assert versions.list_versions(store, "recommend") == [20110830001]


@pytest.mark.slow
def test_a_night_that_meets_only_conflicts_is_tried_again(
    unruly: Misbehaving, packaged: Run, reshelve: Any
) -> None:
    unruly.add(says(409, "ConditionalRequestConflict", conditional_on("manifest.json")))
    assert reshelve(*PUBLISH).returncode == 75


def test_a_completed_upload_is_known_again(
    unruly: Misbehaving,
    through: ObjectStore,
    store: ObjectStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def completes(request: Request) -> bool:
        return request.method == "POST" and "uploadId" in request.query

    monkeypatch.setattr(uploads, "PART_BYTES", PART_BYTES)
    body = os.urandom(PART_BYTES + 1000)
    (tmp_path / "graph").write_bytes(body)
    digest = hashlib.sha256(body).hexdigest()
    lost = unruly.add(loses_answers(completes))
    assert upload(through, [Upload(tmp_path / "graph", "models/m/1/graph", digest, len(body))]) == len(body)
    assert lost.seen == 1
    found = store.get("models/m/1/graph")
    assert found is not None and found.body == body
