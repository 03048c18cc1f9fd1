"""`release.approval: another_person` on the running platform: whoever requested a release does not let it through, by any way."""

from __future__ import annotations

import json
import urllib.parse
from typing import Any

import pytest
from tests.airflow.platform_here import CAREFUL
from tests.airflow.shelf import THREE, TWO, Shelf, eventually, press
from tests.airflow.test_security import Answer, Person

from reshelve.deployments.deployment_log import read_log
from reshelve.deployments.release_table import ReleaseState

pytestmark = [pytest.mark.platform, pytest.mark.slow]

ANALYST = "analyst"
APPROVE = f"approve_{CAREFUL}"


@pytest.fixture
def requested(shelf: Shelf) -> Shelf:
    """The analyst requested the release of three, which waits for another person."""
    shelf.load(THREE, approval=True, not_by=ANALYST)
    return shelf


def asked(person: Person, method: str, path: str, body: dict[str, Any]) -> Answer:
    """Airflow's own API, as this person."""
    return person.send(method, f"/api/v2{path}", json.dumps(body), {"Content-Type": "application/json"})


def answers_yes(person: Person, run: dict[str, Any]) -> Answer:
    there = f"/dags/{run['dag_id']}/dagRuns/{urllib.parse.quote(run['dag_run_id'], safe='')}"
    said = {"chosen_options": ["Approve"], "params_input": {"why": "I looked"}}
    return asked(person, "PATCH", f"{there}/taskInstances/approval/-1/hitlDetails", said)


def waits_still(shelf: Shelf) -> bool:
    now = shelf.pointer
    return (now.stable, now.canary, now.state) == (TWO, THREE, ReleaseState.APPROVAL)


def approved_by(shelf: Shelf) -> str:
    eventually("three is stable", lambda: shelf.pointer.stable == THREE)
    return [entry.pointer.by for entry in read_log(shelf.store, CAREFUL) if entry.action == "approve"][-1]


def test_a_yes_to_the_question_of_the_run(requested: Shelf) -> None:
    analyst, admin = Person(requested.here, ANALYST), Person(requested.here, "admin")
    run = requested.waiting_run(THREE)
    answer = answers_yes(analyst, run)
    assert answer.status == 200, answer.body
    eventually(
        "the try with the requester's yes is over",
        lambda: requested.here.tasks(run)["approval"] != "awaiting_input",
    )
    requested.waits_again(run, tries=2)
    assert waits_still(requested), "the requester's yes let nothing through"
    assert answers_yes(admin, run).status == 200
    assert approved_by(requested) == "admin"
    requested.run(run["dag_id"], "success")


def test_the_button_of_the_page(requested: Shelf) -> None:
    analyst, admin = Person(requested.here, ANALYST), Person(requested.here, "admin")
    before = requested.runs()
    answer = press(analyst, analyst.token(CAREFUL), "approve", version=THREE)
    assert answer.status == 409 and "another person has to approve it" in answer.body, answer.body
    assert waits_still(requested) and requested.runs() == before
    assert press(admin, admin.token(CAREFUL), "approve", version=THREE).status == 303
    assert approved_by(requested) == "admin"


def test_a_run_of_the_dag_behind_the_button(requested: Shelf) -> None:
    said = {"logical_date": None, "conf": {"version": THREE, "reason": "I looked"}}
    started = asked(Person(requested.here, ANALYST), "POST", f"/dags/{APPROVE}/dagRuns", said)
    assert started.status == 200, started.body
    requested.run(APPROVE, "failed")
    assert waits_still(requested)
    started = asked(Person(requested.here, "admin"), "POST", f"/dags/{APPROVE}/dagRuns", said)
    assert started.status == 200, started.body
    assert approved_by(requested) == "admin"
