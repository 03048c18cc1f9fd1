"""Buttons of a page that is out of date, on the running platform: what was decided about one release never reaches another."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

import pytest
from fastapi.routing import APIRoute
from tests.airflow.platform_here import CAREFUL
from tests.airflow.shelf import ONE, THREE, TWO, UNSERVED, Shelf, eventually, press
from tests.airflow.test_security import Answer, Person, application

from reshelve.deployments.deployment_log import Pointer, Promote, Withdraw, read_log, read_pointer
from reshelve.processes import wait_until

ROLLBACK = f"rollback_{CAREFUL}"

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
