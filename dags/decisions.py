"""
### A person's word on a release under way

`approve` lets a release that waits for a person go on: it is promoted at once. `withdraw` takes a release under way
back: what is stable serves on, and the version stays published. Both name the version, so that a word said too late
changes nothing. The Releases page starts them; where a run of `release_<ranker>` itself waits for an answer
(*Required Actions*), it answers that run in their place. Without Airflow: `reshelve approve`, `reshelve withdraw`.
"""

from __future__ import annotations

from airflow.sdk import DAG

from reshelve.config.ranker import ranker_names
from reshelve_airflow.params import airflow_params, decision_params
from reshelve_airflow.policies import by_hand
from reshelve_airflow.verb import ReshelveOperator

Form = decision_params(ranker_names())

DESCRIPTIONS = {
    "approve": "Approve a waiting release",
    "withdraw": "Withdraw a release under way",
}

for verb, description in DESCRIPTIONS.items():
    with DAG(verb, **by_hand(description, __doc__, airflow_params(Form))) as dag:
        ReshelveOperator(
            task_id=verb,
            verb=verb,
            options={"by": "{{ dag_run.triggering_user_name or dag_run.run_id }}"},
            option_params=list(Form.model_fields),
        )
    globals()[dag.dag_id] = dag
