"""
### Serve the previous version again

Moves a ranker's pointer back to the version that served before, or to the one named by `to`. It takes seconds and needs
no training. **Dry run is on by default**: the log says what would happen. Without Airflow:
`reshelve rollback --ranker search --reason "…"`.
"""

from __future__ import annotations

from airflow.sdk import DAG

from reshelve.config.ranker import ranker_names
from reshelve_airflow.params import airflow_params, rollback_params
from reshelve_airflow.policies import by_hand
from reshelve_airflow.verb import ResumingOperator

Form = rollback_params(ranker_names())

with DAG("rollback", **by_hand("Serve a ranker's previous version again", __doc__, airflow_params(Form))):
    ResumingOperator(
        task_id="rollback",
        verb="rollback",
        options={"by": "{{ dag_run.triggering_user_name or dag_run.run_id }}"},
        option_params=list(Form.model_fields),
    )
