"""Buttons of a page that is out of date, on the running platform: what was decided about one release never reaches another."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi.routing import APIRoute
from tests.airflow.platform_here import CAREFUL, AirflowHere
from tests.airflow.test_security import Answer, Person, application

from reshelve.deployments.deployment_log import (
    Advance,
    Change,
    Offer,
    Pointer,
    Promote,
    Withdraw,
    move_pointer,
    read_log,
    read_pointer,
)
from reshelve.deployments.release_table import Event, Plan, ReleaseState
from reshelve.processes import wait_until
from reshelve.protocol.reports import Report, Serving, write_report
from reshelve.settings import settings
from reshelve.store.keys import make
from reshelve.store.objects import ObjectStore
from reshelve.store.verdicts import signed_manifest

ONE, TWO, THREE = 20110828001, 20110829001, 20110830001
UNSERVED = "ads"  # no agent reports of it: whoever has moved its pointer waits for one
ROLLBACK = f"rollback_{CAREFUL}"
DAGS = tuple(f"{verb}_{CAREFUL}" for verb in ("release", "approve", "withdraw", "rollback"))


def eventually(what: str, found: Callable[[], Any], seconds: float = 180) -> Any:
    deadline = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.5)
    return answer


class Shelf:
    """The deployment of `careful` on the running platform. Its agent is a report that is written anew all the time."""

    def __init__(self, here: AirflowHere) -> None:
        self.here, self.store = here, here.store
        self._over = threading.Event()
        self._agent = threading.Thread(target=self._report)
        self._agent.start()

    def close(self) -> None:
        self._over.set()
        self._agent.join()

    def _report(self) -> None:
        while not self._over.wait(1):
            pointer = self.pointer
            serving = Serving(stable=pointer.stable, available=(ONE, TWO, THREE))
            report = Report(
                agent="a", server="127.0.0.1:1", at=datetime.now(UTC), sequence=999, serving=serving
            )
            write_report(self.store, CAREFUL, report)

    @property
    def pointer(self) -> Pointer:
        return read_pointer(self.store, CAREFUL) or Pointer(ranker=CAREFUL)

    def move(self, change: Change, by: str = "night") -> Pointer:
        return move_pointer(self.store, CAREFUL, change, by=by, reason=f"{by} said so")

    def load(self, version: int, *, approval: bool) -> Pointer:
        """A release up to where it waits for a person, or is ready."""
        self.move(Offer(version, Plan(approval=approval)))
        self.move(Advance(version, Event.LOADED, ReleaseState.LOADING))
        return self.move(Advance(version, Event.PROBED, ReleaseState.PROBING))

    def waiting_run(self, version: int) -> dict[str, Any]:
        """A run of the release DAG that asks a person about a version, and may be answered.

        Airflow 3.3.2 fails a task whose answer comes before its scheduler has heard that the asking process ended; its
        retry asks anew, and the answer is lost. Nobody reads a question that fast, and the page waits.
        """
        run = self.here.trigger(f"release_{CAREFUL}", conf={"version": version})
        eventually(
            f"the question about {version}",
            lambda: self.here.tasks(run).get("approval") == "awaiting_input",
        )
        heard = f"state success for task instance TaskInstanceKey(dag_id='{run['dag_id']}', task_id='approval', run_id='{run['dag_run_id']}'"
        eventually("the scheduler has heard", lambda: heard in self.here.log("scheduler"))
        return run

    def runs(self) -> dict[str, int]:
        return {dag: len(self.here.runs(dag)) for dag in DAGS}

    def run(self, dag: str, state: str) -> dict[str, Any]:
        """The newest run of a DAG, once it is in this state."""
        newest = max(self.here.runs(dag), key=lambda run: run["run_after"])
        eventually(f"{dag} is {state}", lambda: self._state(newest) == state)
        return newest

    def _state(self, run: dict[str, Any]) -> str:
        return next(r["state"] for r in self.here.runs(run["dag_id"]) if r["dag_run_id"] == run["dag_run_id"])


@pytest.fixture(scope="module")
def published(airflow_here: AirflowHere) -> AirflowHere:
    """Three signed versions, with the keys of this platform."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESHELVE_HOME", airflow_here.environment["RESHELVE_HOME"])
        settings.cache_clear()
        make(if_missing=True)
        for ranker in (CAREFUL, UNSERVED):
            for version in (ONE, TWO, THREE):
                publish(airflow_here.store, ranker, version)
    settings.cache_clear()
    return airflow_here


def publish(store: ObjectStore, ranker: str, version: int) -> None:
    manifest = {
        "ranker": ranker, "version": version, "kind": "next_item", "created_at": "2011-08-31T03:00:00Z",
        "files": {"saved_model.pb": {"sha256": "0" * 64, "size": 1}},
        "lineage": {"partition": "2011-08-30", "run": "r", "spec_digest": "d", "code_version": "c"},
        "gate": {"verdict": "promote"},
    }  # fmt: skip
    store.put(f"models/{ranker}/{version}/saved_model.pb", b"x")
    store.put_json(f"models/{ranker}/{version}/manifest.json", signed_manifest(manifest))


@pytest.fixture
def shelf(published: AirflowHere, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    """One and then two are stable, and nothing is being released."""
    monkeypatch.setenv("RESHELVE_HOME", published.environment["RESHELVE_HOME"])
    settings.cache_clear()
    made = Shelf(published)
    try:
        if made.pointer.canary is not None:
            made.move(Withdraw(made.pointer.canary))
        for version in (ONE, TWO):
            if made.pointer.stable != version:
                made.load(version, approval=False)
                made.move(Promote(version))
        yield made
    finally:
        made.close()
        settings.cache_clear()


def press(person: Person, token: str, action: str, **fields: Any) -> Answer:
    form = {name: str(value) for name, value in fields.items()}
    return person.post(f"/releases/{CAREFUL}/{action}", {"token": token, "reason": "a click", **form})


BUTTONS = [
    ("approve", {"version": THREE}),
    ("hold", {"version": THREE}),
    ("rollback", {"to": ONE}),
    ("release", {"version": THREE}),
]


def test_every_button_is_bound_to_what_the_page_showed() -> None:
    from reshelve_airflow.releases.bound import bound

    posts = [r for r in application().routes if isinstance(r, APIRoute) and "POST" in r.methods]
    assert {route.path.rpartition("/")[2] for route in posts} == {action for action, _ in BUTTONS}
    for route in posts:
        assert bound in [dependency.call for dependency in route.dependant.dependencies], route.path


@pytest.mark.platform
@pytest.mark.slow
class TestOnTheRunningPlatform:
    @pytest.mark.parametrize("again", [False, True], ids=["withdrawn", "withdrawn, and offered again"])
    def test_a_page_that_is_out_of_date_starts_nothing(self, shelf: Shelf, again: bool) -> None:
        analyst = Person(shelf.here, "analyst")
        shelf.load(THREE, approval=True)
        token = analyst.token(CAREFUL)
        moved = shelf.move(Withdraw(THREE), by="ben")
        if again:
            moved = shelf.load(THREE, approval=True)
        before = shelf.runs()
        for action, fields in BUTTONS:
            answer = press(analyst, token, action, **fields)
            assert answer.status == 409, (action, answer.body)
            assert "This page is out of date" in answer.body and "withdraw by ben: ben said so" in answer.body
            assert f'href="/reshelve/releases/{CAREFUL}"' in answer.body
        assert shelf.runs() == before and shelf.pointer == moved

    def test_another_version_than_the_one_that_waits_is_refused(self, shelf: Shelf) -> None:
        analyst = Person(shelf.here, "analyst")
        shelf.load(THREE, approval=True)
        before = shelf.runs()
        for action in ("approve", "hold"):
            answer = press(analyst, analyst.token(CAREFUL), action, version=TWO)
            assert answer.status == 409 and f"version {THREE} is" in answer.body, (action, answer.body)
        assert shelf.runs() == before

    def test_a_double_click_starts_one_run(self, shelf: Shelf) -> None:
        analyst = Person(shelf.here, "analyst")
        token, before = analyst.token(CAREFUL), shelf.runs()
        answers: list[Answer] = []

        def click() -> None:
            answers.append(press(analyst, token, "rollback", to=ONE))

        clicks = [threading.Thread(target=click) for _ in range(3)]
        for one in clicks:
            one.start()
        for one in clicks:
            one.join()
        assert {answer.status for answer in answers} <= {303, 409}, [answer.body for answer in answers]
        assert shelf.runs()[ROLLBACK] == before[ROLLBACK] + 1
        shelf.run(ROLLBACK, "success")
        assert (shelf.pointer.stable, shelf.pointer.previous) == (ONE, TWO)

    def test_a_rollback_does_not_wait_for_that_of_another_ranker(
        self, shelf: Shelf, make_stable: Callable[..., Pointer]
    ) -> None:
        for version in (ONE, TWO):
            make_stable(shelf.store, UNSERVED, version)
        back = {"to": ONE, "reason": "nobody serves it", "dry_run": False}
        waits = shelf.here.trigger(f"rollback_{UNSERVED}", conf=back)
        eventually("it has moved", lambda: read_pointer(shelf.store, UNSERVED).stable == ONE)  # type: ignore[union-attr]
        analyst = Person(shelf.here, "analyst")
        assert press(analyst, analyst.token(CAREFUL), "rollback", to=ONE).status == 303
        eventually("careful is rolled back", lambda: shelf.pointer.stable == ONE)
        assert shelf.here.tasks(waits)["rollback"] in ("running", "up_for_retry", "queued")

    def test_what_moves_between_the_click_and_the_run_stops_the_run(self, shelf: Shelf) -> None:
        analyst = Person(shelf.here, "analyst")
        shelf.here.call("PATCH", f"/dags/{ROLLBACK}", {"is_paused": True})
        try:
            assert press(analyst, analyst.token(CAREFUL), "rollback", to=ONE).status == 303
            shelf.load(THREE, approval=False)
            moved = shelf.move(Promote(THREE), by="ben")
        finally:
            shelf.here.call("PATCH", f"/dags/{ROLLBACK}", {"is_paused": False})
        shelf.run(ROLLBACK, "failed")
        assert shelf.pointer == moved

    def test_the_run_that_waits_about_another_version_is_left_alone(self, shelf: Shelf) -> None:
        """One run asks about three; that was taken back, and a release of two waits: the page shows two."""
        analyst, release = Person(shelf.here, "analyst"), f"release_{CAREFUL}"
        if shelf.pointer.stable != ONE:
            shelf.load(ONE, approval=False)
            shelf.move(Promote(ONE))
        shelf.load(THREE, approval=True)
        asks = shelf.waiting_run(THREE)
        shelf.move(Withdraw(THREE), by="ben")
        shelf.load(TWO, approval=True)
        answer = press(analyst, analyst.token(CAREFUL), "approve", version=TWO)
        assert answer.status == 303 and f"dag=approve_{CAREFUL}" in answer.headers["location"], answer.body
        eventually("two is stable", lambda: shelf.pointer.stable == TWO)
        assert shelf.here.tasks(asks)["approval"] == "awaiting_input"
        there = f"/dags/{release}/dagRuns/{asks['dag_run_id']}/taskInstances/approval/-1/hitlDetails"
        shelf.here.call("PATCH", there, {"chosen_options": ["Approve"], "params_input": {"why": "late"}})
        shelf.run(release, "failed")
        assert shelf.here.tasks(asks)["conclude"] == "failed"
        assert (shelf.pointer.stable, shelf.pointer.canary) == (TWO, None)

    def test_an_answer_in_the_moment_of_the_question_is_not_lost(self, shelf: Shelf) -> None:
        """The scheduler hears late that the task has asked: it stands still from before the question until after the click."""
        analyst, release = Person(shelf.here, "analyst"), f"release_{CAREFUL}"
        shelf.load(THREE, approval=True)
        run = shelf.here.trigger(release, conf={"version": THREE})
        answers: list[Answer] = []

        def approve() -> None:
            answers.append(press(analyst, analyst.token(CAREFUL), "approve", version=THREE))

        click = threading.Thread(target=approve)
        begun = ("running", "awaiting_input")
        wait_until(lambda: shelf.here.tasks(run).get("approval") in begun, 180, "the task", every=0.05)
        os.kill(shelf.here.pids["scheduler"], signal.SIGSTOP)
        try:
            eventually("the question", lambda: shelf.here.tasks(run)["approval"] == "awaiting_input")
            click.start()
            click.join(2)  # an answer at once comes within it
        finally:
            os.kill(shelf.here.pids["scheduler"], signal.SIGCONT)
        click.join()
        assert answers[0].status == 303, answers[0].body
        eventually("three is stable", lambda: shelf.pointer.stable == THREE)
        assert shelf.here.tasks(run)["approval"] == "success"

    def test_the_answer_to_an_earlier_release_of_the_same_version_is_none_to_this_one(
        self, shelf: Shelf
    ) -> None:
        release = f"release_{CAREFUL}"
        shelf.load(THREE, approval=True)
        asks = shelf.waiting_run(THREE)
        shelf.move(Withdraw(THREE), by="ben")
        again = shelf.load(THREE, approval=True)
        there = f"/dags/{release}/dagRuns/{asks['dag_run_id']}/taskInstances/approval/-1/hitlDetails"
        shelf.here.call("PATCH", there, {"chosen_options": ["Approve"], "params_input": {"why": "late"}})
        shelf.run(release, "failed")
        assert shelf.pointer == again

    def test_the_run_that_asks_about_this_release_is_answered_once(self, shelf: Shelf) -> None:
        analyst, release = Person(shelf.here, "analyst"), f"release_{CAREFUL}"
        shelf.load(THREE, approval=True)
        asks = shelf.waiting_run(THREE)
        token, before = analyst.token(CAREFUL), shelf.runs()
        answer = press(analyst, token, "approve", version=THREE)
        assert answer.status == 303 and f"dag={release}" in answer.headers["location"], answer.body
        assert press(analyst, token, "hold", version=THREE).status == 409
        shelf.run(release, "success")
        assert shelf.here.tasks(asks)["conclude"] == "success" and shelf.pointer.stable == THREE
        (approved,) = [e for e in read_log(shelf.store, CAREFUL)[-4:] if e.action == "approve"]
        assert approved.pointer.by == "analyst" and shelf.runs() == before
