"""The key of releases brings no version to customers that the gate held, or by fewer steps than it was published to have."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from tests.deployed import judged, put_entry, put_version

from reshelve.config.ranker import Ranker
from reshelve.console.status import history
from reshelve.deployments import verified_log
from reshelve.deployments.deployment_log import (
    Advance,
    Approve,
    Change,
    Offer,
    Promote,
    Revert,
    log_problem,
    move_pointer,
    read_log,
    read_pointer,
)
from reshelve.deployments.permitted import left_out
from reshelve.deployments.pointer import Entry
from reshelve.deployments.release_table import Event, Plan, ReleaseState
from reshelve.deployments.signed_entries import check_signed, read_stored, signed_by_person
from reshelve.deployments.verified_log import VerifiedLog
from reshelve.deployments.vouching import HeldError, vouch
from reshelve.errors import ConfigurationError
from reshelve.lineage.run import Run
from reshelve.pipeline.publish import publish as publish_run
from reshelve.rollout.release import _plan
from reshelve.store.manifest import ReleaseSteps
from reshelve.store.objects import ObjectStore
from reshelve.store.roles import Role
from reshelve.store.signatures import signing_key_path, trust
from reshelve.store.versions import require_manifest

NAME = "recommend"
OLD, GOOD, CAREFUL, HELD, NEXT = 20110828001, 20110829001, 20110830001, 20110830002, 20110831001
STEPS = {"shadow": False, "shares": (0.1, 0.5), "approval": True}
FULL = Plan(shares=(0.1, 0.5), approval=True)
MANIFEST = "models/recommend/{}/manifest.json"


def publish(store: ObjectStore, version: int, verdict: str, steps: dict[str, Any] | None) -> None:
    put_version(store, NAME, version, gate={"verdict": verdict}, release=steps)


@pytest.fixture
def shop(store: ObjectStore, make_stable: Callable[..., Any]) -> ObjectStore:
    """OLD gave way to GOOD; CAREFUL is to have a canary and an approval; the gate held HELD; the others are from before versions said so."""
    for version in (OLD, GOOD, CAREFUL, HELD, NEXT):
        verdict = "hold" if version == HELD else "promote"
        publish(store, version, verdict, STEPS if version == CAREFUL else None)
    for version in (OLD, GOOD):
        make_stable(store, NAME, version)
    return store


def way(version: int, plan: Plan, waits: int = 0) -> list[Change]:
    """A whole release by its plan; `waits`: how often it is held in the middle."""
    moves: list[Change] = [Offer(version, plan), Advance(version, Event.LOADED, ReleaseState.LOADING)]
    moves += [Advance(version, Event.PROBED, ReleaseState.PROBING)]
    for step in range(1, len(plan.shares) + 1):
        moves += [Advance(version, Event.HOLD, ReleaseState.CANARY, step, held=f"{n}") for n in range(waits)]
        moves += [Advance(version, Event.PASSED, ReleaseState.CANARY, step)]
    return [*moves, *([Approve(version)] if plan.approval else []), Promote(version)]


def steal(store: ObjectStore, changes: Iterable[Change]) -> None:
    """Write moves with the stolen key of releases, past every check of a mover; approvals with the person's."""
    for change in changes:
        now = read_log(store, NAME)[-1].pointer
        moved = change.apply(now).model_copy(update={"sequence": now.sequence + 1, "by": "eve"})
        assert moved.model_copy(update={"sequence": now.sequence, "by": now.by}) != now
        moved = moved.model_copy(update={"moved_at": now.moved_at})
        put_entry(store, Entry(sequence=moved.sequence, action=change.action, pointer=moved))


def fresh(store: ObjectStore) -> VerifiedLog:
    """Who looks for the first time."""
    log = VerifiedLog(store, NAME, None)
    log.look()
    return log


def stable(log: VerifiedLog) -> int | None:
    return log.pointer and log.pointer.stable


@pytest.fixture
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> int:
    """How many moves a first look reads."""
    monkeypatch.setattr(verified_log, "_WINDOW", 8)
    return 8


def put_away(role: Role) -> Path:
    path = signing_key_path(role)
    return path.rename(path.with_suffix(".elsewhere"))


def signer(store: ObjectStore, sequence: int) -> Role:
    stored = read_stored(store, NAME, sequence)
    assert stored is not None and check_signed(stored, trust())
    return Role.PERSON if signed_by_person(stored, trust()) else Role.RELEASE


@pytest.mark.parametrize(
    ("plan", "less"),
    [
        (Plan(), "the canary (0.1, 0.5) and a person's approval"),
        (Plan(shares=(0.1, 0.5)), "a person's approval"),
        (Plan(approval=True), "the canary (0.1, 0.5)"),
        (Plan(approval=True, shares=(0.1,)), "the canary (0.1, 0.5)"),
        (Plan(approval=True, shares=(0.1, 0.9)), "the canary (0.1, 0.5)"),
        (Plan(approval=True, shares=(0.2, 0.5)), "the canary (0.1, 0.5)"),
    ],
)
def test_a_stolen_release_key_leaves_no_step_out(shop: ObjectStore, plan: Plan, less: str) -> None:
    log = fresh(shop)
    steal(shop, way(CAREFUL, plan))
    log.look()
    for seen in (log, fresh(shop)):
        assert stable(seen) == GOOD and seen.pointer.canary is None  # type: ignore[union-attr]
        assert f"offers version {CAREFUL} without {less}" in seen.problem, seen.problem
    assert read_pointer(shop, NAME).stable == GOOD and less in log_problem(shop, NAME)  # type: ignore[union-attr]
    assert [less in problem for problem in history(NAME)["problems"]] == [True], "`reshelve log` shows it"


@pytest.mark.parametrize("plan", [FULL, Plan(shadow=True, shares=(0.02, 0.1, 0.5), approval=True)])
def test_a_plan_with_all_its_steps_takes_the_release_key_alone(shop: ObjectStore, plan: Plan) -> None:
    put_away(Role.PERSON)
    moved = move_pointer(shop, NAME, Offer(CAREFUL, plan), by="night", reason="")
    assert (moved.canary, fresh(shop).pointer, signer(shop, 9)) == (CAREFUL, moved, Role.RELEASE)


def test_a_plan_with_fewer_takes_a_person(shop: ObjectStore) -> None:
    """Somebody has edited the ranker file since the version was published."""
    key = put_away(Role.PERSON)
    with pytest.raises(ConfigurationError, match=r"no private key here may sign offer.*a person's approval"):
        move_pointer(shop, NAME, Offer(CAREFUL, Plan(shares=(0.1, 0.5))), by="night", reason="")
    assert len(read_log(shop, NAME)) == 8 and log_problem(shop, NAME) == ""
    key.rename(signing_key_path(Role.PERSON))
    for change in way(CAREFUL, Plan()):
        move_pointer(shop, NAME, change, by="anna", reason="we cannot wait")
    assert [signer(shop, number) for number in (9, 12)] == [Role.PERSON, Role.RELEASE]
    move_pointer(shop, NAME, Revert(GOOD), by="watch", reason="")
    put_away(Role.PERSON)
    move_pointer(shop, NAME, Revert(CAREFUL), by="watch", reason="")
    assert stable(fresh(shop)) == CAREFUL and log_problem(shop, NAME) == ""


def test_a_version_from_before_takes_what_it_took(shop: ObjectStore) -> None:
    put_away(Role.PERSON)
    for change in way(NEXT, Plan()):
        move_pointer(shop, NAME, change, by="night", reason="")
    assert stable(fresh(shop)) == NEXT and log_problem(shop, NAME) == ""


@pytest.mark.parametrize(("version", "plan"), [(HELD, Plan()), (CAREFUL, Plan())])
def test_what_others_hide_that_were_promoted_later_is_seen(
    shop: ObjectStore, version: int, plan: Plan
) -> None:
    """Nobody looked while it was stable or before that; then it could be chosen by a rollback."""
    log = fresh(shop)
    steal(shop, [*way(version, plan), *way(NEXT, Plan()), *way(OLD, Plan())])
    log.look()
    for seen in (log, fresh(shop)):
        assert stable(seen) == GOOD and f"offers version {version}" in seen.problem


@pytest.mark.parametrize(("version", "plan"), [(HELD, Plan()), (CAREFUL, Plan())])
def test_a_manifest_that_was_away_meanwhile_hides_nothing(
    shop: ObjectStore, version: int, plan: Plan
) -> None:
    """Whoever may write to the bucket as well deletes it until its version has served."""
    log, key = fresh(shop), MANIFEST.format(version)
    manifest = shop.get_json(key)
    shop.delete([key])
    steal(shop, [*way(version, plan), *way(NEXT, Plan()), *way(OLD, Plan())])
    log.look()
    assert stable(log) == OLD, "nobody can know, and nobody is served by it"
    shop.put_json(key, manifest)
    steal(shop, [Revert(version)])
    log.look()
    assert stable(log) == OLD and f"makes version {version} stable: " in log.problem


def test_a_person_may_go_back_to_any_version_that_served(shop: ObjectStore) -> None:
    move_pointer(shop, NAME, Offer(HELD, Plan(allow_held=True)), by="anna", reason="")
    for change in way(HELD, Plan())[1:]:
        move_pointer(shop, NAME, change, by="night", reason="")
    move_pointer(shop, NAME, Revert(GOOD), by="watch", reason="")
    key = put_away(Role.PERSON)
    move_pointer(shop, NAME, Revert(HELD), by="watch", reason="")
    assert stable(fresh(shop)) == HELD, "a person let it serve: that stands"
    key.rename(signing_key_path(Role.PERSON))
    move_pointer(shop, NAME, Revert(GOOD), by="anna", reason="", role=Role.PERSON)
    assert stable(fresh(shop)) == GOOD and log_problem(shop, NAME) == ""


@pytest.mark.parametrize("ends", [0, 2])
def test_whoever_looks_first_asks_how_what_serves_came_there(
    shop: ObjectStore, few_at_once: int, ends: int
) -> None:
    """A first look reads the newest moves alone: others before them are no way past it."""
    waits = 2 * few_at_once
    moves = way(HELD, Plan(shares=(0.1,)), waits)
    steal(shop, moves[: len(moves) - ends] + ([] if ends else way(NEXT, Plan(shares=(0.1,)), waits)[:-1]))
    log = fresh(shop)
    log.look()
    assert stable(log) == GOOD and log.pointer.canary is None  # type: ignore[union-attr]
    assert f"offers version {HELD}" in log.problem


def test_a_first_look_finds_the_leave_of_what_waited_for_long(shop: ObjectStore, few_at_once: int) -> None:
    for change in way(CAREFUL, FULL, waits=2 * few_at_once)[:-2]:
        move_pointer(shop, NAME, change, by="night", reason="")
    log = fresh(shop)
    assert log.problem == "" and log.pointer == read_pointer(shop, NAME)


def test_to_vouch_takes_over_nothing_held_that_has_served_meanwhile(shop: ObjectStore) -> None:
    steal(shop, way(HELD, Plan()))
    with pytest.raises(HeldError, match="is stable in these moves, and the gate said hold"):
        vouch(shop, NAME, 12, by="anna", reason="")
    assert vouch(shop, NAME, 8, by="anna", reason="").stable == GOOD


def test_to_vouch_lets_no_release_go_on_without_its_steps(shop: ObjectStore) -> None:
    steal(shop, way(CAREFUL, Plan())[:2])
    with pytest.raises(HeldError, match="a person's approval"):
        vouch(shop, NAME, 10, by="anna", reason="")
    assert vouch(shop, NAME, 8, by="anna", reason="").canary is None


def test_a_release_that_somebody_vouched_for_goes_on(shop: ObjectStore) -> None:
    moves = way(CAREFUL, FULL)
    for change in moves[:3]:
        move_pointer(shop, NAME, change, by="night", reason="")
    vouch(shop, NAME, 11, by="anna", reason="a key was revoked")
    for change in moves[3:]:
        move_pointer(shop, NAME, change, by="night", reason="")
    assert stable(fresh(shop)) == CAREFUL and signer(shop, 16) is Role.RELEASE


def test_what_is_left_out_is_said_in_words() -> None:
    asked = ReleaseSteps(shadow=True, shares=(0.1,), approval=True)
    assert left_out(asked, Plan()) == "the shadow and the canary (0.1) and a person's approval"
    assert left_out(asked, Plan(shadow=True, shares=(0.1,), approval=True)) == ""
    assert left_out(ReleaseSteps(another_person=True), Plan()) == "another person's approval"
    assert left_out(ReleaseSteps(another_person=True), Plan(another_person=True)) == ""
    assert left_out(ReleaseSteps(index=True), Plan()) == "the wait for the index"
    assert left_out(ReleaseSteps(index=True), Plan(index=True)) == ""
    assert left_out(None, Plan()) == left_out(ReleaseSteps(), Plan()) == ""


def test_a_version_is_published_with_the_steps_of_its_night(store: ObjectStore, tmp_path: Path) -> None:
    shared = {"name": NAME, "title": "The next item", "kind": "next_item", "data": {"source": "retail"},
              "gates": {"metric": "recall@20"}}  # fmt: skip
    careful = {"approval": True, "canary": {"shares": [0.05, 0.25]}, "shadow": {"requests": 10}}
    then, now = (Ranker.model_validate({**shared, "release": rules}) for rules in (careful, {}))
    run = Run(then, date(2011, 8, 30), store, tmp_path / "work")
    directory = run.stage("package").directory / "version"
    directory.mkdir(parents=True)
    (directory / "saved_model.pb").write_bytes(b"x")
    for stage, result in (
        ("package", {"bytes": 1}),
        ("examples", {"verdicts": {}}),
        ("train", {"base": None}),
    ):
        run.stage(stage).commit(result)
    run.stage("gate").commit(judged(run, {"verdict": "promote", "reasons": ["measured"]}))
    steps = require_manifest(store, NAME, int(publish_run(run)["version"])).release
    assert steps == ReleaseSteps(shadow=True, shares=(0.05, 0.25), approval=True)
    plans = [_plan(rules, held=False, requested_by="anna") for rules in (then, now)]
    assert left_out(steps, plans[0]) == "" != left_out(steps, plans[1])
