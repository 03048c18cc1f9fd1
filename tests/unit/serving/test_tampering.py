"""Somebody may write anything into the bucket and has no key: nothing wrong serves, and people are told what was seen."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.deployed import put_entry, put_version

from reshelve.agent.agent import Agent
from reshelve.client.following import Follower
from reshelve.config.ranker import Ranker
from reshelve.console.status import history, status
from reshelve.console.status_page import page
from reshelve.deployments import verified_log
from reshelve.deployments.deployment_log import (
    Advance,
    Approve,
    Entry,
    Offer,
    Pointer,
    Promote,
    Revert,
    Withdraw,
    log_problem,
    move_pointer,
    pointer_key,
    read_log,
    read_pointer,
    settle,
)
from reshelve.deployments.release_table import Event, Plan, ReleaseState
from reshelve.deployments.signed_entries import entry_key, read_stored
from reshelve.deployments.verified_log import VerifiedLog
from reshelve.deployments.vouching import vouch
from reshelve.errors import ConfigurationError, DataError
from reshelve.monitoring.watch import look
from reshelve.platform.new_keys import make_keys, take_over
from reshelve.processes import free_port
from reshelve.protocol import pointers as pointers_module
from reshelve.protocol.reports import Report, Serving, write_report
from reshelve.protocol.traffic import Counts, Meter, TrafficReport, write_traffic
from reshelve.settings import settings
from reshelve.store.objects import ObjectStore
from reshelve.store.roles import Role
from reshelve.store.signatures import (
    SIGNATURE,
    Signed,
    signed,
    signing_key,
    signing_key_path,
    trusted_keys_path,
)

NAME = "recommend"
OLD, GOOD, HELD = 20110828001, 20110829001, 20110830001
WAY = ((Event.LOADED, ReleaseState.LOADING), (Event.PROBED, ReleaseState.PROBING))


@pytest.fixture(autouse=True)
def _looks_at_the_log_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pointers_module, "_LOG_SECONDS", -1.0)


@pytest.fixture
def shop(store: ObjectStore, make_stable: Callable[..., Any]) -> ObjectStore:
    """OLD gave way to GOOD; HELD is published, and the gate held it."""
    for version in (OLD, GOOD, HELD):
        gate = {"verdict": "hold" if version == HELD else "promote", "reasons": ["surely worse"]}
        put_version(store, NAME, version, gate=gate)
    for version in (OLD, GOOD):
        make_stable(store, NAME, version)
    return store


@pytest.fixture
def start(shop: ObjectStore, tmp_path: Path) -> Iterator[Callable[[], Agent]]:
    """Start an agent on one directory, as often as a test wants; its model server is away."""
    started: list[Agent] = []
    (tmp_path / "models").mkdir()

    def begin() -> Agent:
        started.append(Agent(tmp_path / "models", f"127.0.0.1:{free_port()}", "a", shop, shop))
        started[-1].start()
        started[-1].round()
        return started[-1]

    yield begin
    for agent in started:
        agent.close()


def fresh(store: ObjectStore) -> VerifiedLog:
    """Who looks for the first time."""
    log = VerifiedLog(store, NAME, None)
    log.look()
    return log


def caller_sees(store: ObjectStore) -> Pointer | None:
    follower = Follower(NAME, store, Meter("shop"), 60)
    follower.close()
    return follower.pointer


def in_force(store: ObjectStore, agent: Agent) -> set[int | None]:
    """The stable version of everybody who acts on it."""
    agent.round()
    pointers = (
        agent.pointers.known.get(NAME),
        caller_sees(store),
        read_pointer(store, NAME),
        fresh(store).pointer,
    )
    return {pointer and pointer.stable for pointer in pointers}


def last(store: ObjectStore) -> Pointer:
    found = read_pointer(store, NAME)
    assert found is not None
    return found


def forge(
    store: ObjectStore,
    before: Pointer,
    action: str,
    sign: Callable[[dict[str, Any]], dict[str, Any]],
    **changes: Any,
) -> Pointer:
    """Write a move as the attacker can: chained as it should be, signed as they may."""
    said = {
        "sequence": before.sequence + 1,
        "moved_at": datetime.now(UTC),
        "by": "anna",
        "reason": "all is well",
    }
    moved = Pointer.model_validate({**before.model_dump(), **said, **changes})
    stored = read_stored(store, NAME, before.sequence)
    digest = stored.digest if stored else ""
    document = Entry(sequence=moved.sequence, action=action, pointer=moved, before=digest).model_dump(
        mode="json"
    )
    store.put_json(entry_key(NAME, moved.sequence), sign(document))
    store.put_json(pointer_key(NAME), moved.model_dump(mode="json"))
    return moved


def whole_way(store: ObjectStore, sign: Callable[[dict[str, Any]], dict[str, Any]]) -> Pointer:
    """Offer, …, approve, promote the version that the gate held."""
    now = forge(store, last(store), "offer", sign, canary=HELD, state="loading", plan=Plan(approval=True))
    now = forge(store, now, "loaded", sign, state="probing")
    now = forge(store, now, "probed", sign, state="approval")
    now = forge(store, now, "approve", sign, state="ready")
    gone = {"canary": None, "plan": Plan(), "state": "idle", "served": (*now.served, HELD)}
    return forge(store, now, "promote", sign, stable=HELD, previous=GOOD, **gone)


def unsigned(document: dict[str, Any]) -> dict[str, Any]:
    return document


def by_a_stranger(document: dict[str, Any]) -> dict[str, Any]:
    return signed(document, Ed25519PrivateKey.generate(), Signed.MOVE)


def borrowed(store: ObjectStore) -> Callable[[dict[str, Any]], dict[str, Any]]:
    signature = store.get_json(entry_key(NAME, 1))[SIGNATURE]
    return lambda document: {**document, SIGNATURE: signature}


def as_a_version(document: dict[str, Any]) -> dict[str, Any]:
    """With the key of the build: its word on versions is none on what serves."""
    return signed(document, signing_key(Role.BUILD), Signed.MOVE)


@pytest.mark.parametrize("how", ["unsigned", "a stranger's key", "a borrowed signature", "the build's key"])
def test_a_forged_log_is_followed_by_nobody(
    shop: ObjectStore, start: Callable[[], Agent], ranker: Ranker, how: str
) -> None:
    agent = start()
    sign = {
        "unsigned": unsigned,
        "a stranger's key": by_a_stranger,
        "a borrowed signature": borrowed(shop),
        "the build's key": as_a_version,
    }[how]
    forged = whole_way(shop, sign)
    assert forged.stable == HELD
    assert in_force(shop, agent) == {GOOD} == in_force(shop, start())
    first = entry_key(NAME, 9)
    said = look(ranker, dry_run=True)
    assert "tampered with" in said["headline"] and first in json.dumps(said), said
    assert first in (agent.pointers.damaged[NAME]) and status(NAME)[NAME]["pointer"]["stable"] == GOOD
    lines = list(page(shop, status(NAME), None))
    assert lines[0] == f"{NAME}: TAMPERED WITH, version {GOOD} stays in force" and first in "".join(lines)
    assert any("entry 9" in problem for problem in history(NAME)["problems"])
    with pytest.raises(DataError, match=first):
        move_pointer(shop, NAME, Revert(OLD), by="anna", reason="")

    vouch(shop, NAME, 8, by="anna", reason="what comes after was written by nobody of us")
    assert move_pointer(shop, NAME, Revert(OLD), by="anna", reason="").sequence == 10
    assert in_force(shop, agent) == {OLD} and log_problem(shop, NAME) == ""
    assert len(list(shop.list(f"deployments/{NAME}/set-aside/"))) == 5


@pytest.mark.parametrize("sequence", [0, 3, 8, 99])
def test_a_forged_pointer_is_followed_by_nobody(
    shop: ObjectStore, start: Callable[[], Agent], ranker: Ranker, sequence: int
) -> None:
    agent = start()
    forged = last(shop).model_copy(update={"sequence": sequence, "stable": HELD})
    shop.put_json(pointer_key(NAME), forged.model_dump(mode="json"))
    assert in_force(shop, agent) == {GOOD} == in_force(shop, start())
    if sequence >= 8:  # an older one may lag behind
        assert "is not what the log says" in json.dumps(look(ranker, dry_run=True))
    assert move_pointer(shop, NAME, Revert(OLD), by="anna", reason="").stable == OLD
    assert in_force(shop, agent) == {OLD} and log_problem(shop, NAME) == ""


def test_a_log_that_was_put_back_is_seen_after_a_restart_too(
    shop: ObjectStore, start: Callable[[], Agent], ranker: Ranker
) -> None:
    start()
    old = read_log(shop, NAME)[3].pointer
    shop.delete([entry_key(NAME, number) for number in range(5, 9)])
    shop.put_json(pointer_key(NAME), old.model_dump(mode="json"))
    assert old.stable == OLD and fresh(shop).pointer == old, "nobody who looks for the first time can know"
    agent = start()
    assert agent.pointers.known[NAME].stable == GOOD == last(shop).stable
    assert "an older log was put back" in agent.pointers.damaged[NAME]
    assert "an older log was put back" in json.dumps(look(ranker, dry_run=True))
    with pytest.raises(DataError, match="put back"):
        move_pointer(shop, NAME, Revert(OLD), by="anna", reason="")


def test_an_entry_that_was_followed_and_is_another_one_now_is_seen(
    shop: ObjectStore, start: Callable[[], Agent]
) -> None:
    agent = start()
    entry = read_log(shop, NAME)[-1]
    put_entry(shop, entry.model_copy(update={"evidence": {"by": "somebody with the key"}}))
    agent.round()
    assert "the log was changed" in agent.pointers.damaged[NAME]


def test_a_pointer_object_that_is_written_anew_all_the_time_stops_nobody(
    shop: ObjectStore, start: Callable[[], Agent]
) -> None:
    """Frozen: whoever looks at the object alone would never see another one."""
    agent, stop = start(), threading.Event()
    frozen = shop.get(pointer_key(NAME))
    assert frozen is not None

    def freeze() -> None:
        while not stop.is_set():
            shop.put(pointer_key(NAME), frozen.body)

    thread = threading.Thread(target=freeze)
    thread.start()
    try:
        for version in (OLD, GOOD, OLD):
            assert move_pointer(shop, NAME, Revert(version), by="anna", reason="").stable == version
            settle(shop, NAME)
        assert in_force(shop, agent) == {OLD}
    finally:
        stop.set()
        thread.join()


def test_a_forged_report_of_an_agent_is_told(shop: ObjectStore, ranker: Ranker) -> None:
    serving = Serving(stable=HELD, available=(HELD,))
    at = datetime.now(UTC)
    write_report(shop, NAME, Report(agent="evil", server="h:1", at=at, sequence=99, serving=serving))
    said = json.dumps(look(ranker, dry_run=True))
    assert "agent evil reports move 99, the log ends at 8" in said and last(shop).stable == GOOD


def test_forged_traffic_moves_nothing(shop: ObjectStore, ranker: Ranker) -> None:
    """However bad it tells of a version: the watch asks the version itself, and one that cannot be asked is not taken back."""
    at, before = datetime.now(UTC), last(shop)
    write_report(shop, NAME, Report(agent="a", server=f"127.0.0.1:{free_port()}", at=at, sequence=8))
    for requests in (5000, 20_000, 60_000):
        counts = Counts(requests=requests, errors={"INTERNAL": requests // 2})
        for client in ("shop", "other"):
            write_traffic(shop, NAME, TrafficReport(client=client, at=at, counts={8: {GOOD: counts}}))
        said = look(ranker)  # the first one only learns what was counted before
        assert last(shop) == before
    assert any(finding.startswith("bad service: ") for finding in said["findings"]), said


def test_a_held_version_needs_a_person_and_nothing_is_written_without(shop: ObjectStore) -> None:
    signing_key_path(Role.PERSON).rename(signing_key_path(Role.PERSON).with_suffix(".elsewhere"))
    for plan in (Plan(), Plan(allow_held=True)):
        with pytest.raises(
            ConfigurationError, match=r"the gate said hold|no private key here may sign offer"
        ):
            move_pointer(shop, NAME, Offer(HELD, plan), by="night", reason="")
    assert len(read_log(shop, NAME)) == 8 and log_problem(shop, NAME) == ""


def test_a_release_key_cannot_let_a_held_version_serve(shop: ObjectStore, start: Callable[[], Agent]) -> None:
    """Whoever stole it writes what the mover's own check would have refused."""
    agent = start()

    def stolen(document: dict[str, Any]) -> dict[str, Any]:
        return signed(document, signing_key(Role.RELEASE), Signed.MOVE)

    now = forge(shop, last(shop), "offer", stolen, canary=HELD, state="loading", plan=Plan())
    now = forge(shop, now, "loaded", stolen, state="probing")
    now = forge(shop, now, "probed", stolen, state="ready")
    gone = {"canary": None, "state": "idle", "served": (*now.served, HELD)}
    forge(shop, now, "promote", stolen, stable=HELD, previous=GOOD, **gone)
    assert in_force(shop, agent) == {GOOD}
    assert "of which the gate said hold" in agent.pointers.damaged[NAME]


def test_a_release_key_cannot_approve(shop: ObjectStore) -> None:
    move_pointer(shop, NAME, Offer(OLD, Plan(approval=True)), by="night", reason="")
    for event, state in WAY:
        move_pointer(shop, NAME, Advance(OLD, event, state), by="night", reason="")
    person = signing_key_path(Role.PERSON)
    person.rename(person.with_suffix(".elsewhere"))
    with pytest.raises(ConfigurationError, match="no private key here may sign approve"):
        move_pointer(shop, NAME, Approve(OLD), by="night", reason="")
    now = forge(
        shop, last(shop), "approve",
        lambda document: signed(document, signing_key(Role.RELEASE), Signed.MOVE), state="ready",
    )  # fmt: skip
    assert fresh(shop).pointer == last(shop) != now and "role release" in log_problem(shop, NAME)


def test_an_agent_promotes_nothing_that_its_requester_approved(
    shop: ObjectStore, start: Callable[[], Agent]
) -> None:
    """The mover's own check left out, and all keys at hand."""
    agent = start()

    def sign(document: dict[str, Any]) -> dict[str, Any]:
        role = Role.PERSON if document["action"] == "approve" else Role.RELEASE
        return signed(document, signing_key(role), Signed.MOVE)

    plan = Plan(approval=True, another_person=True, requested_by="anna")  # `forge` moves in anna's name
    now = forge(shop, last(shop), "offer", sign, canary=OLD, state="loading", plan=plan)
    now = forge(shop, now, "loaded", sign, state="probing")
    now = forge(shop, now, "probed", sign, state="approval")
    now = forge(shop, now, "approve", sign, state="ready")
    gone = {"canary": None, "plan": Plan(), "state": "idle", "served": (GOOD, OLD)}
    forge(shop, now, "promote", sign, stable=OLD, previous=GOOD, **gone)
    assert in_force(shop, agent) == {GOOD} == in_force(shop, start())
    assert "another person has to approve it" in agent.pointers.damaged[NAME]


def test_a_jump_over_the_table_is_no_move_whoever_signs_it(shop: ObjectStore) -> None:
    now = last(shop)
    jumped = now.model_copy(
        update={"sequence": 9, "stable": HELD, "previous": GOOD, "moved_at": datetime.now(UTC)}
    )
    put_entry(shop, Entry(sequence=9, action="promote", pointer=jumped), Role.PERSON)
    assert fresh(shop).pointer == now == last(shop) and "is not a legal move" in log_problem(shop, NAME)


def end_key(role: Role, word: str, at: datetime) -> None:
    """Say in the public key's file that it ends."""
    for path in trusted_keys_path().glob("*.pem"):
        if f"role: {role.value}\n" in path.read_text():
            path.write_text(f"{word}: {at:%Y-%m-%dT%H:%M:%S.%fZ}\n{path.read_text()}")


@pytest.mark.parametrize("word", ["not-after", "revoked"])
def test_a_key_that_has_ended_chooses_nothing_more_and_what_it_chose_stays_legal(
    shop: ObjectStore, start: Callable[[], Agent], word: str
) -> None:
    agent = start()
    move_pointer(shop, NAME, Revert(OLD), by="anna", reason="", role=Role.PERSON)
    end_key(Role.PERSON, word, datetime.now(UTC))
    assert in_force(shop, agent) == {OLD} and log_problem(shop, NAME) == ""
    signing_key_path(Role.RELEASE).rename(signing_key_path(Role.RELEASE).with_suffix(".elsewhere"))
    with pytest.raises(
        ConfigurationError,
        match=f"no private key here may sign rollback\n.*{'expired' if word == 'not-after' else word}",
    ):
        move_pointer(shop, NAME, Revert(GOOD), by="anna", reason="")
    assert len(read_log(shop, NAME)) == 9, "nothing that blocks the log was written"


def test_who_holds_an_expired_key_cannot_date_back(shop: ObjectStore, start: Callable[[], Agent]) -> None:
    agent = start()
    end_key(Role.PERSON, "not-after", datetime.now(UTC) - timedelta(hours=1))
    moved = Revert(OLD).apply(last(shop))
    early = moved.model_copy(
        update={"sequence": 9, "moved_at": datetime.now(UTC) - timedelta(hours=2), "by": "eve"}
    )
    put_entry(shop, Entry(sequence=9, action="rollback", pointer=early), Role.PERSON)
    assert in_force(shop, agent) == {GOOD} and "expired" in agent.pointers.damaged[NAME]


def test_a_stolen_key_is_revoked_and_a_person_vouches_for_what_is_to_stay(
    shop: ObjectStore, start: Callable[[], Agent]
) -> None:
    agent, stolen_since = start(), datetime.now(UTC)
    move_pointer(shop, NAME, Revert(OLD), by="eve", reason="")  # with the release key, and followed by all
    assert in_force(shop, agent) == {OLD}
    end_key(Role.RELEASE, "revoked", stolen_since)
    agent.round()
    assert agent.pointers.known[NAME].stable == OLD, "who serves it goes on until a person has decided"
    assert "revoked" in agent.pointers.damaged[NAME]
    assert fresh(shop).pointer is not None and fresh(shop).pointer.stable == GOOD  # type: ignore[union-attr]
    with pytest.raises(DataError, match="revoked"):
        move_pointer(shop, NAME, Revert(GOOD), by="anna", reason="", role=Role.PERSON)
    with pytest.raises(DataError, match="move 9 is followed already"):
        vouch(shop, NAME, 8, by="anna", reason="")
    vouch(shop, NAME, 9, by="anna", reason="a stolen key rolled back; we go forward again")
    move_pointer(shop, NAME, Revert(GOOD), by="anna", reason="", role=Role.PERSON)
    assert in_force(shop, agent) == {GOOD} and log_problem(shop, NAME) == ""


@pytest.mark.parametrize("allowed", [False, True])
def test_to_vouch_lets_nothing_serve_that_the_gate_held(shop: ObjectStore, allowed: bool) -> None:
    """Nor does taking a key away: what a revoked key allowed is not allowed by who vouches."""
    forge(shop, last(shop), "offer", unsigned, canary=HELD, state="loading", plan=Plan(allow_held=allowed))
    with pytest.raises(ConfigurationError, match="the gate said hold"):
        vouch(shop, NAME, 9, by="anna", reason="")
    assert vouch(shop, NAME, 8, by="anna", reason="").canary is None


@pytest.fixture
def from_before(shop: ObjectStore) -> ObjectStore:
    """A log as it was before moves were signed, on a host that has followed none."""
    for number in range(1, 9):
        document = shop.get_json(entry_key(NAME, number))
        bare = {name: value for name, value in document.items() if name not in (SIGNATURE, "before")}
        shop.put_json(entry_key(NAME, number), bare)
    verified_log._LOGS.clear()
    shutil.rmtree(settings().home / "followed")
    return shop


def test_a_log_from_before_moves_were_signed_is_vouched_for_once(from_before: ObjectStore) -> None:
    log = fresh(from_before)
    assert log.pointer is None and "a person has to vouch" in log.problem
    moved = vouch(from_before, NAME, 8, by="anna", reason="the upgrade")
    assert (moved.sequence, moved.stable, fresh(from_before).pointer) == (9, GOOD, moved)
    assert history(NAME)["problems"] == []
    from_before.put_json(
        entry_key(NAME, 2), {**from_before.get_json(entry_key(NAME, 2)), "evidence": {"x": 1}}
    )
    assert history(NAME)["problems"] == ["moves 1 to 8 were changed after somebody vouched for them"]


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_machine_takes_its_own_store_over_only_with_keys_that_are_new(
    from_before: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: bool
) -> None:
    """A key that is merely kept elsewhere is no reason to believe the bucket."""
    home = tmp_path / "upgraded"
    (home / "keys" / "trusted").mkdir(parents=True)
    signing_key_path().rename(home / "keys" / "signing.pem")
    for path in trusted_keys_path().glob("*.pem"):
        kept = f"role: {Role.BUILD.value}\n" in path.read_text() or elsewhere
        if kept:
            path.rename(home / "keys" / "trusted" / path.name)
    monkeypatch.setenv("RESHELVE_HOME", str(home))
    settings.cache_clear()
    make_keys(home)
    if not elsewhere:
        take_over(home, from_before)
    assert (fresh(from_before).pointer is None) is elsewhere
    make_keys(home)
    assert not (home / "new-keys").exists()


def test_a_first_look_verifies_the_newest_moves_alone(
    shop: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(70):
        move_pointer(shop, NAME, Revert(OLD if number % 2 == 0 else GOOD), by="anna", reason="")
    asked: list[str] = []
    get = shop.get

    def counted(key: str) -> Any:
        asked.append(key)
        return get(key)

    monkeypatch.setattr(shop, "get", counted)
    assert fresh(shop).pointer == last(shop) and len(asked) < 80
    asked.clear()
    for _ in range(5):
        read_pointer(shop, NAME)
    assert len(asked) == 5, "what was verified once is not read again"


def test_withdraw_and_promote_end_as_they_should(shop: ObjectStore) -> None:
    """The strict comparison of states has to agree with every legal way."""
    move_pointer(shop, NAME, Offer(OLD, Plan(shares=(0.1, 0.5))), by="night", reason="")
    for event, state in WAY:
        move_pointer(shop, NAME, Advance(OLD, event, state), by="night", reason="")
    move_pointer(
        shop, NAME, Advance(OLD, Event.HOLD, ReleaseState.CANARY, 1, held="too few"), by="n", reason=""
    )
    move_pointer(shop, NAME, Advance(OLD, Event.PASSED, ReleaseState.CANARY, 1), by="night", reason="")
    move_pointer(shop, NAME, Advance(OLD, Event.PASSED, ReleaseState.CANARY, 2), by="night", reason="")
    move_pointer(shop, NAME, Promote(OLD), by="night", reason="")
    move_pointer(shop, NAME, Offer(GOOD), by="night", reason="")
    move_pointer(shop, NAME, Withdraw(GOOD), by="night", reason="")
    found = fresh(shop)
    assert found.problem == "" and found.pointer == last(shop) and history(NAME)["problems"] == []


def test_a_move_does_not_follow_another_than_the_one_it_was_signed_after(shop: ObjectStore) -> None:
    """Each is signed, and legal by the table; but somebody put another one in the place of what came before."""
    replaced, newest = read_log(shop, NAME)[-2:]
    put_entry(shop, replaced.model_copy(update={"evidence": {"by": "somebody with the key"}}))
    log = fresh(shop)
    assert log.pointer != newest.pointer
    assert "does not continue" in log.problem
