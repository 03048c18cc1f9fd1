"""
### Serve the previous version again

Moves a ranker's pointer back to the version that served before, or to the one named by `to`. It takes seconds and needs
no training. **Dry run is on by default**: the log says what would happen. Without Airflow:
`reshelve rollback --ranker search --reason "…"`.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from reshelve.rankers import ranker_names
from reshelve_airflow.params import airflow_params, rollback_params
from reshelve_airflow.policies import Tag, defaults
from reshelve_airflow.verb import ReshelveOperator

Form = rollback_params(ranker_names())

with DAG(
    "rollback",
    description="Serve a ranker's previous version again",
    doc_md=__doc__,
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=1),
    tags=[Tag.RESHELVE, Tag.RELEASE],
    default_args=defaults(),
    params=airflow_params(Form),
):
    ReshelveOperator(
        task_id="rollback",
        verb="rollback",
        options={"by": "{{ dag_run.triggering_user_name or dag_run.run_id }}"},
        option_params=list(Form.model_fields),
    )
