"""
### Release one version of a ranker

Loads a published version beside the one that serves, probes it, takes it through the shadow and the shares that the
ranker file asks for, promotes it, and waits until every agent reports that it serves. A release that is held (too few
requests, no clear answer, a person has to approve: `reshelve approve`) is asked again by the task's retries, and later by
running this DAG again with the same version; it goes on where it is. Where the ranker file says `release.approval: true` (or
`another_person`: not the one who requested the release), the run waits for a person (*Required Actions*); no answer within `release.approval_hours` takes the release back. `retrain_<ranker>` starts this DAG for a version the gate promoted; by hand a version that was
held can be released with `allow_held`. One run at a time. An older partition does not replace a newer one unless
`allow_older` is on.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from reshelve.config.ranker import Ranker
from reshelve_airflow.approval import (
    ANSWER,
    REQUESTER,
    AskApprovalOperator,
    ConcludeOperator,
    ReleaseOperator,
)
from reshelve_airflow.forms import ReleaseParams
from reshelve_airflow.isolation import dags_of
from reshelve_airflow.params import airflow_params
from reshelve_airflow.policies import Tag, defaults, rankers


def release(ranker: Ranker) -> None:
    """One task; for a ranker that asks for a person three: release until then, ask, do what was said."""
    rules = ranker.release
    work = ReleaseOperator(
        task_id="release",
        verb="release",
        options={
            "ranker": ranker.name,
            "by": "{{ dag_run.triggering_user_name or dag_run.run_id }}",
            "user": REQUESTER,
            **({"until-approval": True} if rules.approval else {}),
        },
        option_params=[name for name in ReleaseParams.model_fields if name != "requested_by"],
    )
    if rules.approval:
        ask = AskApprovalOperator(
            task_id="approval", ranker=ranker.name, hours=rules.approval_hours, params=ANSWER
        )
        work >> ask >> ConcludeOperator(task_id="conclude", ranker=ranker.name)


def release_dag(ranker: Ranker) -> DAG:
    """The DAG of one ranker's releases."""
    waiting = timedelta(hours=ranker.release.approval_hours if ranker.release.approval else 0)
    with DAG(
        f"release_{ranker.name}",
        auto_register=False,
        description=f"Release a published version of {ranker.name}",
        doc_md=__doc__,
        schedule=None,
        catchup=False,
        is_paused_upon_creation=False,
        max_active_runs=1,
        dagrun_timeout=timedelta(hours=3) + waiting,
        tags=[Tag.RESHELVE, Tag.RELEASE],
        default_args=defaults(ranker.owner),
        params=airflow_params(ReleaseParams),
    ) as dag:
        release(ranker)
    return dag


made, PROBLEMS = dags_of(rankers(references=False)[0], release_dag)
globals().update(made)
