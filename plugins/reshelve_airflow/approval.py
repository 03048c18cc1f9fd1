"""A release that waits for a person: asked in Airflow (Required Actions), and what is then done with the answer."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import ApprovalOperator, HITLOperator
from airflow.sdk import Param
from airflow.sdk.exceptions import AirflowException, AirflowSkipException

from reshelve.deployments.release_table import Plan
from reshelve_airflow.params import out_of_the_page_s_reach
from reshelve_airflow.verb import ReshelveOperator, ResumingOperator, checked, small

if TYPE_CHECKING:
    from airflow.sdk import Context

# Given where the task is made: Airflow adds a DAG's params to its tasks before a task's own code runs.
# Not `reason`, which the run's own would fill in; null, since Airflow lets nobody answer while a string is empty.
_WHY = {"type": ["null", "string"], "maxLength": 500}
ANSWER = {
    "why": Param(
        None, description="For the deployment log. At most 500 characters.", **out_of_the_page_s_reach(_WHY)
    )
}

_BODY = """
It is loaded next to the stable version and has passed the steps below. **Approve** makes it the stable version; **Reject** withdraws the release, and the version stays published. Without an answer within {hours:g} hours it is withdrawn.
{{% set requester = (ti.xcom_pull(task_ids="release") or {{}}).get("requested_by") %}}{{% if requester %}}
**{{{{ requester }}}}** requested it: another person has to approve it.
{{% endif %}}

[The night's report](/reshelve/report/{ranker}/{{{{ params.version }}}}) ·
[the Releases page](/reshelve/releases/{ranker})

{{% for step in (ti.xcom_pull(task_ids="release") or {{}}).get("steps", []) if step.step != "hold" %}}
- {{{{ step.step }}}}: {{{{ step.detail }}}}
{{% endfor %}}
"""


# Nobody but an operator starts a run of that type, so nobody names another requester than themselves. Airflow hands the
# user on from a run to the runs that its tasks start.
REQUESTER = "{{ (params.requested_by if dag_run.run_type == 'operator_triggered') or dag_run.triggering_user_name or '' }}"


class ReleaseOperator(ResumingOperator):
    """`reshelve release`. A retry goes on: what a person took back between two tries is not offered again."""


class AskApprovalOperator(ApprovalOperator):
    """Asks a person about the release that `release` left waiting; skipped where that needed none.

    Hands on `approved`, `by` and `reason`, and the move of the pointer at which `release` left it: the answer is about
    that. No answer in time is a no. Where another person has to approve, the requester's yes fails the try, and the next
    one asks again.
    """

    def __init__(self, *, ranker: str, hours: float, **kwargs: Any) -> None:
        self.hours = hours
        super().__init__(
            subject=f"Promote {ranker} version {{{{ params.version }}}}?",
            body=_BODY.format(ranker=ranker, hours=hours),
            defaults=self.REJECT,
            response_timeout=timedelta(hours=hours),
            **kwargs,
        )

    def execute(self, context: Context) -> Any:
        """Wait for an answer."""
        released = context["ti"].xcom_pull(task_ids="release") or {}
        if not released.get("awaits_approval"):
            raise AirflowSkipException(f"nothing to approve: {released.get('headline')}")
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """The answer. Both go on to the next task, which is why the stock operator's skipping is left out."""
        answer = HITLOperator.execute_complete(self, context, event)
        person = answer["responded_by_user"]
        reason = str(answer["params_input"].get("why") or "")
        approved = answer["chosen_options"] == [self.APPROVE]
        released = context["ti"].xcom_pull(task_ids="release") or {}
        asked = released.get("sequence")
        if approved and person is not None:
            _require_another_person(released.get("requested_by", ""), person["name"])
        if person is None:
            late = f"no answer within {self.hours:g} hours"
            return {"approved": False, "by": "nobody", "reason": late, "sequence": asked}
        word = "approved" if approved else "rejected"
        return {"approved": approved, "by": person["name"], "reason": reason or word, "sequence": asked}


class ConcludeOperator(ReshelveOperator):
    """`reshelve approve` or `reshelve withdraw`, as the person said, of the very release that they were asked about."""

    def __init__(self, *, ranker: str, **kwargs: Any) -> None:
        super().__init__(verb="approve", options={"ranker": ranker}, **kwargs)

    def execute(self, context: Context) -> Any:
        """Do what was answered."""
        answer = context["ti"].xcom_pull(task_ids="approval")
        verb = "approve" if answer["approved"] else "withdraw"
        said = {
            "by": answer["by"],
            "user": answer["by"] if answer["approved"] else None,
            "reason": answer["reason"],
            "version": context["params"]["version"],
            "if-sequence": answer.get("sequence"),
            "run": context["params"].get("run") if answer["approved"] else None,
        }
        return small(checked(self.run_verb(verb, {**self.options, **said}), verb, context))


def _require_another_person(requested_by: str, name: str) -> None:
    if not Plan(another_person=True, requested_by=requested_by).may_approve(name):
        raise AirflowException(f"{name} requested this release, and another person has to approve it")
