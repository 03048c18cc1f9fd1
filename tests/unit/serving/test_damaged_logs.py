"""A log, a manifest or a key that is damaged, late or missing costs what it is of, and nothing and nobody else."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.deployed import put_entry, put_version

from reshelve.client.following import Follower
from reshelve.deployments import signed_entries, verified_log, vouching
from reshelve.deployments.deployment_log import (
    Advance,
    Entry,
    Offer,
    Pointer,
    Promote,
    Revert,
    move_pointer,
    pointer_key,
    read_log,
    read_pointer,
)
from reshelve.deployments.release_table import Event, ReleaseState
from reshelve.deployments.signed_entries import entry_key
from reshelve.deployments.verified_log import VerifiedLog
from reshelve.deployments.vouching import vouch
from reshelve.errors import ConfigurationError, DataError, TryAgainError
from reshelve.gateway import gateway
from reshelve.gateway.ready import Readiness
from reshelve.platform import new_keys
from reshelve.platform.new_keys import keys_are_new, make_keys, take_over
from reshelve.protocol import pointers as pointers_module
from reshelve.protocol.pointers import Pointers
from reshelve.protocol.traffic import Meter
from reshelve.settings import PROJECT, settings
from reshelve.store import keys
from reshelve.store.manifest import Manifest
from reshelve.store.objects import ObjectStore
from reshelve.store.roles import Role
from reshelve.store.signatures import (
    SIGNATURE,
    Trust,
    make_key_pair,
    signing_key_path,
    trust,
    trusted_keys_path,
)

NAME, OTHER = "recommend", "search"
OLD, GOOD, HELD = 20110828001, 20110829001, 20110830001
DEEP = b'{"pointer":' + b"[" * 100_000


@pytest.fixture(autouse=True)
def _looks_at_the_log_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pointers_module, "_LOG_SECONDS", -1.0)


@pytest.fixture
def shop(store: ObjectStore, make_stable: Callable[..., Any]) -> ObjectStore:
    """Two rankers; OLD gave way to GOOD (move 8); HELD is published, and the gate held it."""
    for ranker in (NAME, OTHER):
        for version in (OLD, GOOD, HELD):
            put_version(store, ranker, version, gate={"verdict": "hold" if version == HELD else "promote"})
        for version in (OLD, GOOD):
            make_stable(store, ranker, version)
    return store


def fresh(store: ObjectStore) -> VerifiedLog:
    """Who looks for the first time."""
    log = VerifiedLog(store, NAME, None)
    log.look()
    return log


def unsign(store: ObjectStore) -> None:
    """Make all logs as they were before moves were signed, on a host that has followed none."""
    for ranker in (NAME, OTHER):
        for entry in read_log(store, ranker):
            key = entry_key(ranker, entry.sequence)
            document = store.get_json(key)
            store.put_json(key, {k: v for k, v in document.items() if k not in (SIGNATURE, "before")})
    verified_log._LOGS.clear()
    shutil.rmtree(settings().home / "followed")


def public_file(role: Role) -> Path:
    (found,) = (p for p in trusted_keys_path().glob("*.pem") if f"role: {role.value}\n" in p.read_text())
    return found


def say_of(role: Role, line: str) -> None:
    path = public_file(role)
    path.write_text(f"{line}\n{path.read_text()}")


@pytest.mark.parametrize(
    "body",
    [DEEP, b"[" * 100_000, b'{"a":' + b"[" * 300 + b"]" * 300 + b"}", b'{"a": "' + b"x" * 2_000_000 + b'"}'],
)
def test_json_that_is_too_deep_or_too_large_stops_one_log_alone(
    shop: ObjectStore, tmp_path: Path, body: bytes
) -> None:
    shop.put(entry_key(NAME, 9), body)
    pointers = Pointers(shop, tmp_path / "f")
    pointers.refresh()
    assert pointers.known[NAME].stable == pointers.known[OTHER].stable == GOOD and pointers.away is None
    assert "00000009.json is damaged" in pointers.damaged[NAME] and OTHER not in pointers.damaged
    follower = Follower(NAME, shop, Meter("shop"), 60)
    follower.close()
    assert follower.pointer is not None and follower.pointer.stable == GOOD
    assert vouch(shop, NAME, 8, by="anna", reason="").sequence == 9
    with pytest.raises(DataError, match="manifest is not valid"):
        Manifest.parse(body, "it", Trust({}, False))


def test_what_nobody_foresaw_of_one_ranker_is_that_rankers_alone(
    shop: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = VerifiedLog.look

    def broken(log: VerifiedLog) -> Pointer | None:
        if log.ranker == NAME:
            raise RuntimeError("nobody foresaw this")
        return look(log)

    monkeypatch.setattr(VerifiedLog, "look", broken)
    pointers = Pointers(shop, tmp_path / "f")
    pointers.refresh()
    assert set(pointers.known) == {OTHER} and pointers.complete
    assert "nobody foresaw this" in pointers.damaged[NAME]
    follower = Follower(NAME, shop, Meter("shop"), 60)
    follower.close()
    assert follower.pointer is None
    monkeypatch.undo()
    pointers.refresh()
    assert pointers.known[NAME].stable == GOOD and pointers.damaged == {}


@pytest.mark.parametrize("how", ["expired", "untrusted", "unreadable", "no key"])
def test_the_other_key_signs_where_the_first_one_does_not_count(shop: ObjectStore, how: str) -> None:
    person = signing_key_path(Role.PERSON)
    if how == "expired":
        say_of(Role.PERSON, "not-after: 2020-01-01T00:00:00Z")
    elif how == "untrusted":
        public_file(Role.PERSON).unlink()
    elif how == "unreadable":
        person.chmod(0o644)
    else:
        person.write_text("no key")
    moved = move_pointer(shop, NAME, Revert(OLD), by="anna", reason="", role=Role.PERSON)
    assert (moved.sequence, fresh(shop).pointer) == (9, moved)
    signing_key_path(Role.RELEASE).unlink()
    with pytest.raises(ConfigurationError, match="no private key here may sign rollback") as raised:
        move_pointer(shop, NAME, Revert(GOOD), by="anna", reason="", role=Role.PERSON)
    assert str(person) in raised.value.detail and str(signing_key_path(Role.RELEASE)) in raised.value.detail


def test_a_key_that_ends_within_the_error_of_a_clock_signs_nothing_more(
    shop: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store's clock may be ahead of ours: by its time the key has ended, and the move would block the log."""
    say_of(Role.RELEASE, f"not-after: {datetime.now(UTC) + timedelta(minutes=5):%Y-%m-%dT%H:%M:%SZ}")
    person = signing_key_path(Role.PERSON)
    person.rename(person.with_suffix(".elsewhere"))
    with pytest.raises(ConfigurationError, match="expired at"):
        move_pointer(shop, NAME, Revert(OLD), by="anna", reason="")
    assert len(read_log(shop, NAME)) == 8


def test_a_key_that_ends_soon_is_told(shop: ObjectStore, capsys: pytest.CaptureFixture[str]) -> None:
    move_pointer(shop, NAME, Revert(OLD), by="anna", reason="")
    assert "expires soon" not in "".join(capsys.readouterr())
    say_of(Role.RELEASE, f"not-after: {datetime.now(UTC) + timedelta(days=20):%Y-%m-%dT%H:%M:%SZ}")
    move_pointer(shop, NAME, Revert(GOOD), by="anna", reason="")
    assert "expires soon" in "".join(capsys.readouterr())


@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_a_held_version_does_not_serve_while_its_manifest_is_hidden(shop: ObjectStore, how: str) -> None:
    """With a stolen release key, and the right to write into the bucket."""
    manifest = f"models/{NAME}/{HELD}/manifest.json"
    kept = shop.get(manifest)
    assert kept is not None
    follower = fresh(shop)
    shop.delete([manifest]) if how == "missing" else shop.put(manifest, b"{")
    now = read_pointer(shop, NAME)
    assert now is not None
    for change in (
        Offer(HELD),
        Advance(HELD, Event.LOADED, ReleaseState.LOADING),
        Advance(HELD, Event.PROBED, ReleaseState.PROBING),
        Promote(HELD),
    ):
        wanted = change.apply(now)
        now = wanted.model_copy(
            update={"sequence": now.sequence + 1, "moved_at": datetime.now(UTC), "by": "eve"}
        )
        put_entry(shop, Entry(sequence=now.sequence, action=change.action, pointer=now))
        assert [follower.look(), fresh(shop).pointer] == [read_pointer(shop, NAME)] * 2
        assert follower.pointer is not None and follower.pointer.sequence == 8
    assert f"offers version {HELD}, whose manifest" in follower.problem
    with pytest.raises(ConfigurationError, match="whose manifest"):
        vouch(shop, NAME, 9, by="anna", reason="")
    shop.put(manifest, kept.body)
    follower.look()
    assert follower.pointer.sequence == 8 and "the gate said hold" in follower.problem


def test_a_way_back_whose_manifest_is_gone_stops_nobody(shop: ObjectStore) -> None:
    shop.delete([f"models/{NAME}/{OLD}/manifest.json"])
    found = fresh(shop)
    assert found.problem == "" and found.pointer is not None and found.pointer.previous == OLD


def test_a_typo_in_one_trusted_key_costs_that_key_alone(
    shop: ObjectStore, capsys: pytest.CaptureFixture[str]
) -> None:
    say_of(Role.PERSON, "revoked tomorrow")
    (trusted_keys_path() / "gone.pem").symlink_to("nowhere")
    assert fresh(shop).pointer == read_pointer(shop, NAME)
    assert len(trust().keys) == len(Role) - 1
    assert "a trusted key is left out" in "".join(capsys.readouterr())
    assert move_pointer(shop, NAME, Revert(OLD), by="anna", reason="").sequence == 9
    with pytest.raises(ConfigurationError, match=r"is not a public key|expected `word: value`"):
        keys.make(if_missing=True)  # it may be the one of a role that seems to have none
    make_keys(settings().home)  # nothing is missing: a platform starts all the same


def test_a_key_may_end_with_the_calendar(shop: ObjectStore) -> None:
    say_of(Role.RELEASE, "not-after: 9999-12-31T23:59:59Z")
    assert move_pointer(shop, NAME, Revert(OLD), by="anna", reason="") == fresh(shop).pointer


def test_a_typo_that_is_mended_is_forgotten(shop: ObjectStore, tmp_path: Path) -> None:
    pointers = Pointers(shop, tmp_path / "f")
    pointers.refresh()
    before = public_file(Role.RELEASE).read_text()
    say_of(Role.RELEASE, "revoked tomorrow")
    pointers.refresh()
    assert "not trusted here" in pointers.damaged[NAME] and pointers.known[NAME].stable == GOOD
    public_file(Role.RELEASE).write_text(before)
    move_pointer(shop, NAME, Revert(OLD), by="anna", reason="")
    pointers.refresh()
    assert pointers.damaged == {} and pointers.known[NAME].stable == OLD


def test_who_deletes_what_was_remembered_has_the_log_read_anew(shop: ObjectStore, tmp_path: Path) -> None:
    pointers = Pointers(shop, tmp_path / "f")
    pointers.refresh()
    old = read_log(shop, NAME)[3].pointer
    shop.delete([entry_key(NAME, number) for number in range(5, 9)])
    shop.put_json(pointer_key(NAME), old.model_dump(mode="json"))
    pointers.refresh()
    assert "an older log was put back" in pointers.damaged[NAME] and pointers.known[NAME].stable == GOOD
    (tmp_path / "f" / f"{NAME}.json").unlink()
    pointers.refresh()
    assert pointers.damaged == {} and pointers.known[NAME] == old and old.stable == OLD


def test_whoever_vouches_sets_no_move_aside_that_others_follow(
    shop: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mover was faster than whoever looked at the log before."""
    sign = vouching.sign_move

    def late(entry: Entry, preferred: Role) -> signed_entries.StoredEntry:
        monkeypatch.setattr(vouching, "sign_move", sign)
        move_pointer(shop, NAME, Revert(OLD), by="ben", reason="")
        return sign(entry, preferred)

    monkeypatch.setattr(vouching, "sign_move", late)
    with pytest.raises(TryAgainError, match="the log has moved meanwhile, to move 9"):
        vouch(shop, NAME, 8, by="anna", reason="")
    assert len(read_log(shop, NAME)) == 9 and read_pointer(shop, NAME) == fresh(shop).pointer


@pytest.mark.parametrize("running", [False, True])
def test_a_gateway_that_believes_no_log_is_not_ready(
    shop: ObjectStore, tmp_path: Path, running: bool
) -> None:
    """What an older one left in nginx goes on serving; a new one says that it is not ready."""
    unsign(shop)
    pointers = Pointers(shop, tmp_path / "f")
    pointers.refresh()
    assert pointers.away is None and pointers.known == {} and gateway._believes_nothing(pointers)
    ready = tmp_path / "ready"
    if running:
        ready.touch()
    Readiness(ready, ["127.0.0.1:1"], lambda: gateway._wanted(pointers)).look()
    assert ready.exists() is running
    vouch(shop, NAME, 8, by="anna", reason="")
    pointers.refresh()
    assert not gateway._believes_nothing(pointers) and gateway._wanted(pointers) == [(NAME, GOOD)]


def fresh_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing but the trusted key from before there were roles, whose private part did not come along."""
    home = tmp_path / "upgraded"
    (home / "keys" / "trusted").mkdir(parents=True)
    path = public_file(Role.BUILD)
    text = path.read_text()
    (home / "keys" / "trusted" / path.name).write_text(text[text.index("-----BEGIN") :])
    monkeypatch.setenv("RESHELVE_HOME", str(home))
    settings.cache_clear()
    return home


def test_compose_makes_each_key_that_is_missing_and_takes_the_log_over(
    shop: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unsign(shop)
    shop.put_json(
        f"models/{NAME}/20110831001/manifest.json",
        {k: v for k, v in shop.get_json(f"models/{NAME}/{OLD}/manifest.json").items() if k != SIGNATURE},
    )
    home = fresh_home(tmp_path, monkeypatch)
    (command,) = (
        line.split()
        for line in (PROJECT / "include/compose/init.sh").read_text().splitlines()
        if "new_keys" in line
    )
    assert command == ["python", "-m", "reshelve.platform.new_keys", "/keys"]
    for _ in range(2):
        subprocess.run([sys.executable, *command[1:3], str(home)], check=True, timeout=120)
        assert all(signing_key_path(role).is_file() for role in Role)
        assert fresh(shop).pointer is not None and fresh(shop).pointer.stable == GOOD  # type: ignore[union-attr]
        assert len(trust().keys) == 5 and not keys_are_new(home)
    unsigned = shop.get_json(f"models/{NAME}/20110831001/manifest.json")
    assert SIGNATURE not in unsigned, "a build key was trusted before: what it did not sign is not believed"
    person = signing_key_path(Role.PERSON)
    person.rename(home / "taken-to-where-people-decide.pem")
    make_keys(home, old_keys_sign=False)
    assert not person.exists()


def test_one_ranker_that_is_refused_keeps_no_other_one_from_being_taken_over(
    shop: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unsign(shop)
    shop.put(entry_key(NAME, 8), b"{")
    manifest = shop.get_json(f"models/{NAME}/{OLD}/manifest.json")
    bare = {k: v for k, v in manifest.items() if k not in (SIGNATURE, "gate_signature")}
    shop.put_json(f"models/{NAME}/{OLD}/manifest.json", bare)
    shop.delete([f"models/{NAME}/{OLD}/saved_model.pb"])
    home = fresh_home(tmp_path, monkeypatch)
    make_keys(home, old_keys_sign=False)
    (home / "new-keys").write_text("\n".join(Role))  # so that versions are signed too
    take_over(home, shop)
    said = "".join(capsys.readouterr())
    assert f"reshelve vouch --ranker {NAME}" in said and f"reshelve keys sign --ranker {NAME}" in said
    other = read_pointer(shop, OTHER)
    assert other is not None and (other.sequence, other.stable) == (9, GOOD) and not keys_are_new(home)


def test_a_take_over_ends_the_release_of_a_version_that_the_gate_held(
    shop: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = read_pointer(shop, NAME)
    assert now is not None
    offered = (
        Offer(HELD).apply(now).model_copy(update={"sequence": 9, "moved_at": datetime.now(UTC), "by": "x"})
    )
    put_entry(shop, Entry(sequence=9, action="offer", pointer=offered))
    unsign(shop)
    home = fresh_home(tmp_path, monkeypatch)
    make_keys(home, old_keys_sign=False)
    take_over(home, shop)
    found = fresh(shop).pointer
    assert found is not None and (found.sequence, found.stable, found.canary) == (9, GOOD, None)


def test_a_start_that_is_broken_off_between_keys_and_take_over_loses_nothing(
    shop: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unsign(shop)
    home = fresh_home(tmp_path, monkeypatch)

    def killed(*, if_missing: bool, roles: list[Role]) -> None:
        make_key_pair(Role.RELEASE)
        make_key_pair(Role.PERSON)
        signing_key_path(Role.PERSON).unlink()  # its public part is written first
        raise KeyboardInterrupt

    monkeypatch.setattr(new_keys.keys, "make", killed)
    with pytest.raises(KeyboardInterrupt):
        make_keys(home)
    monkeypatch.undo()
    monkeypatch.setenv("RESHELVE_HOME", str(home))
    settings.cache_clear()
    assert keys_are_new(home)
    make_keys(home)
    take_over(home, shop)
    assert fresh(shop).pointer is not None and json.loads(json.dumps(keys.describe()))["signs"]["person"]
