"""The answer of a person to the run that asks: whose it is, and what it becomes."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from reshelve_airflow.approval import ANSWER, AskApprovalOperator, ConcludeOperator

ASKED = {"sequence": 7, "awaits_approval": True, "requested_by": "anna"}


def answered(option: str, name: str | None, released: dict[str, Any]) -> dict[str, Any]:
    """What the task hands on where this person chose so."""
    task = AskApprovalOperator(task_id="approval", ranker="recommend", hours=1, params=ANSWER)
    person = None if name is None else {"id": "1", "name": name}
    event = {
        "chosen_options": [option], "params_input": {"why": "I looked"},
        "responded_at": datetime.now(UTC), "responded_by_user": person,
    }  # fmt: skip
    ti = SimpleNamespace(xcom_pull=lambda task_ids: {"release": released}[task_ids])
    context: Any = {"ti": ti}
    return task.execute_complete(context, event)


def test_the_requesters_yes_fails_the_try_and_may_be_asked_again() -> None:
    with pytest.raises(AirflowException, match="anna requested this release") as raised:
        answered("Approve", "anna", ASKED)
    assert not isinstance(raised.value, AirflowFailException), "the next try asks another person"
    assert answered("Approve", "ben", ASKED)["by"] == "ben"
    assert answered("Approve", "anna", {**ASKED, "requested_by": ""})["approved"]


def test_who_requested_may_take_it_back() -> None:
    assert answered("Reject", "anna", ASKED) == {
        "approved": False, "by": "anna", "reason": "I looked", "sequence": 7,
    }  # fmt: skip
    assert answered("Reject", None, ASKED)["by"] == "nobody"


@pytest.mark.parametrize("approved", [True, False])
def test_the_verb_is_told_who_was_logged_in(approved: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def verb(self: Any, name: str, options: dict[str, Any]) -> Any:
        asked.append((name, options))
        raise AirflowException("that is enough")

    monkeypatch.setattr(ConcludeOperator, "run_verb", verb)
    answer = {"approved": approved, "by": "ben", "reason": "good", "sequence": 7}
    context: Any = {"ti": SimpleNamespace(xcom_pull=lambda task_ids: answer), "params": {"version": 3}}
    with pytest.raises(AirflowException, match="enough"):
        ConcludeOperator(task_id="conclude", ranker="recommend").execute(context)
    ((name, options),) = asked
    assert name == ("approve" if approved else "withdraw") and options["by"] == "ben"
    assert options["user"] == ("ben" if approved else None)
