"""What a person decides about one ranker's releases: `approve_<ranker>`, `withdraw_<ranker>`, `rollback_<ranker>`.

Each ranker has its own, so that Airflow's permissions say who may decide about which. A ranker whose file is wrong has
them too: it has to be possible to go back.
"""

from __future__ import annotations

from collections.abc import Iterator

from airflow.sdk import DAG

from reshelve.config.ranker import ranker_names
from reshelve_airflow.forms import DecisionParams, RollbackParams
from reshelve_airflow.params import Params, airflow_params
from reshelve_airflow.policies import by_hand
from reshelve_airflow.verb import ReshelveOperator, ResumingOperator

APPROVE = """
### Let a release that waits for a person go on

The version is promoted at once. It is named, so that a word said too late changes nothing. Where the ranker file says
`release.approval: another_person`, whoever requested the release is refused. The Releases page starts this DAG; where a
run of the ranker's release DAG itself waits for an answer (*Required Actions*), it answers that run in its place.
Without Airflow: `reshelve approve`.
"""

WITHDRAW = """
### Take a release under way back

What is stable serves on, and the version stays published. It is named, so that a word said too late changes nothing. The
Releases page starts this DAG; where a run of the ranker's release DAG itself waits for an answer (*Required Actions*),
it answers that run in its place. Without Airflow: `reshelve withdraw`.
"""

ROLLBACK = """
### Serve the previous version again

Moves the ranker's pointer back to the version that served before, or to the one named by `to`. It takes seconds and needs
no training. **Dry run is on by default**: the log says what would happen. Without Airflow:
`reshelve rollback --ranker search --reason "…"`.
"""

USER = "{{ dag_run.triggering_user_name or '' }}"
BY = "{{ dag_run.triggering_user_name or dag_run.run_id }}"


def decisions(ranker: str) -> Iterator[DAG]:
    """The DAGs of one ranker."""
    yield decision(ranker, "approve", "approve a waiting release", APPROVE, DecisionParams)
    yield decision(ranker, "withdraw", "withdraw a release under way", WITHDRAW, DecisionParams)
    yield decision(ranker, "rollback", "serve a previous version again", ROLLBACK, RollbackParams)


def decision(ranker: str, verb: str, description: str, doc: str, form: type[Params]) -> DAG:
    """The DAG of one verb for one ranker."""
    with DAG(
        f"{verb}_{ranker}",
        auto_register=False,
        **by_hand(f"{ranker}: {description}", doc, airflow_params(form)),
    ) as dag:
        operator = ResumingOperator if verb == "rollback" else ReshelveOperator
        known = {"user": USER} if verb == "approve" else {}
        operator(
            task_id=verb,
            verb=verb,
            options={"ranker": ranker, "by": BY, **known},
            option_params=list(form.model_fields),
        )
    return dag


# No key is a name that Python code could have: a ranker's may be that of a function.
globals().update({f"dag {dag.dag_id}": dag for name in ranker_names() for dag in decisions(name)})
