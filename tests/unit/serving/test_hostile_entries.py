"""Whatever somebody writes as the next move of a log, who has no key or one that has ended: nobody follows it, and nothing breaks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tests.deployed import put_entry, put_version

from reshelve.deployments import verified_log
from reshelve.deployments.deployment_log import Entry, Revert, move_pointer
from reshelve.deployments.signed_entries import entry_key, read_stored
from reshelve.deployments.verified_log import VerifiedLog
from reshelve.settings import settings
from reshelve.store.objects import ObjectStore
from reshelve.store.roles import Role
from reshelve.store.signatures import SIGNATURE, Signed, signed, signing_key, trusted_keys_path

NAME, OLD, GOOD, NEXT = "recommend", 20110828001, 20110829001, 9
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
BODIES = {
    "nothing": b"", "no JSON": b"{", "no UTF-8": b"\xff\xfe{}", "a list": b"[]", "nested": b"[" * 200_000, "nested objects": b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "a number of many digits": b'{"sequence": ' + b"9" * 5000 + b"}", "large": b'{"a": "' + b"x" * 1_100_000 + b'"}', "half a sign": b'{"action": "\\ud800"}',
}  # fmt: skip


class Log:
    """A log of eight moves, the legal ninth that was never written, and somebody who followed the eight."""

    def __init__(self, store: ObjectStore, folder: Path) -> None:
        self.store = store
        self.follower = VerifiedLog(store, NAME, folder)
        self.before = self.follower.look()
        move_pointer(store, NAME, Revert(OLD), by="anna", reason="", role=Role.PERSON)
        self.ninth: dict[str, Any] = store.get_json(entry_key(NAME, NEXT)) or {}
        store.delete([entry_key(NAME, NEXT)])

    def stays(self, body: bytes) -> str:
        """Nobody follows these bytes; what is said of them."""
        self.store.put(entry_key(NAME, NEXT), body)
        first = VerifiedLog(self.store, NAME, None)
        for log in (self.follower, first):
            assert log.look() == self.before and log.problem
        return first.problem


@pytest.fixture
def log(store: ObjectStore, make_stable: Callable[..., Any], tmp_path: Path) -> Log:
    for version in (OLD, GOOD):
        put_version(store, NAME, version)
        make_stable(store, NAME, version)
    return Log(store, tmp_path / "followed")


def leaves(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict) and value:
        return [path for key, inner in value.items() for path in leaves(inner, (*above, key))]
    return [above]


@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(data=st.data())
def test_no_change_of_a_signed_move_is_followed(log: Log, data: st.DataObject) -> None:
    changed = json.loads(json.dumps(log.ninth))
    *above, name = data.draw(st.sampled_from(leaves(changed)))
    place = changed
    for key in above:
        place = place[key]
    if data.draw(st.booleans()):
        del place[name]
    else:
        value = data.draw(JSON)
        if json.dumps(value) == json.dumps(place[name]):
            return
        place[name] = value
    log.stays(json.dumps(changed).encode())


@hypothesis_settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(document=JSON, borrowed=st.booleans())
def test_no_document_of_a_strangers_is_followed(log: Log, document: Any, borrowed: bool) -> None:
    if borrowed and isinstance(document, dict):
        document = {**document, SIGNATURE: log.ninth[SIGNATURE]}
    log.stays(json.dumps(document).encode())


def test_no_bytes_of_a_strangers_are_followed(log: Log) -> None:
    for body in BODIES.values():
        log.stays(body)


def end_key(role: Role, word: str, at: datetime) -> None:
    for path in trusted_keys_path().glob("*.pem"):
        if f"role: {role.value}\n" in path.read_text():
            path.write_text(f"{word}: {at:%Y-%m-%dT%H:%M:%S.%fZ}\n{path.read_text()}")


@pytest.mark.parametrize("word", ["not-after", "revoked"])
@pytest.mark.parametrize("at", ["2011-08-01T00:00:00", "0001-01-01T00:00:00", "9999-12-31T23:59:59-23:59", None], ids=str)  # fmt: skip
def test_a_key_that_has_ended_signs_no_time_that_is_none(log: Log, word: str, at: str | None) -> None:
    """Whoever holds it may write any time, and one without a zone is none: it neither counts nor stops who reads it."""
    end_key(Role.PERSON, word, datetime.now(UTC) - timedelta(hours=1))
    log.follower.look()
    document = {name: value for name, value in log.ninth.items() if name != SIGNATURE}
    document["pointer"] = {**document["pointer"], "moved_at": at}
    said = log.stays(json.dumps(signed(document, signing_key(Role.PERSON), Signed.MOVE)).encode())
    assert "before this was signed" in said, said


def test_nothing_is_followed_beyond_a_move_of_a_key_that_was_revoked(log: Log) -> None:
    """Not even a legal move of a person's: they may not know of it. Only their word on the log as it is goes on from there."""
    verified_log._LOGS.clear()  # which know the ninth that was taken away
    shutil.rmtree(settings().home / "followed")
    stolen_since = datetime.now(UTC)
    move_pointer(log.store, NAME, Revert(OLD), by="eve", reason="")
    before = log.follower.look()
    assert before is not None and before.stable == OLD
    end_key(Role.RELEASE, "revoked", stolen_since)
    later = {"sequence": NEXT + 1, "moved_at": datetime.now(UTC), "by": "anna"}
    moved = Revert(GOOD).apply(before).model_copy(update=later)
    put_entry(log.store, Entry(sequence=NEXT + 1, action="rollback", pointer=moved), Role.PERSON)
    assert log.follower.look() == before and "revoked" in log.follower.problem


def test_the_ninth_move_as_it_was_signed_is_followed(log: Log) -> None:
    """So that what the others show is not the fault of the move itself."""
    log.store.put_json(entry_key(NAME, NEXT), log.ninth)
    found = log.follower.look()
    assert found is not None and found.stable == OLD and log.follower.problem == ""
    assert read_stored(log.store, NAME, NEXT) is not None and Entry.model_validate(log.ninth).sequence == NEXT


def test_a_host_begins_anew_where_a_person_deletes_what_it_remembers(log: Log, tmp_path: Path) -> None:
    """As after a bucket was restored; until then the older log is one that was put back."""
    log.store.delete([entry_key(NAME, NEXT - 1)])
    assert log.follower.look() == log.before and "an older log was put back" in log.follower.problem
    shutil.rmtree(tmp_path / "followed")
    found = log.follower.look()
    assert found is not None and found.sequence == NEXT - 2 and log.follower.problem == ""
