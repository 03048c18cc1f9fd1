"""
### Watch over what serves

Every ten minutes, per ranker, from its first release on: what callers measured of each version, what agents report, the newest verdict on the data,
drift of the inputs and of the scores. One decision by a table:

| found | done |
|---|---|
| bad version | roll back now; without a version to go back to: alert |
| bad canary | withdraw it |
| broken data, no traffic | hold releases until it is over; then start `release_<ranker>` for a version that waited |
| drift | start `retrain_<ranker>` on the newest good partition, where no version has learnt from it; else alert |
| a deployment log that was tampered with, bad service, dead agent, late partition or night, an hour out of the ordinary | alert |
| inconclusive | say so |

Thresholds and bounds (cool-down, actions a day) are the ranker file's `watch`. A look never fails for what it decided; the
block at the end of its log explains it. By hand: `reshelve monitor --ranker search --dry-run`. Alerts go to the webhook
`RESHELVE_ALERT_WEBHOOK` and by e-mail to `RESHELVE_ALERT_EMAIL` (connection `smtp_default`).
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG

from reshelve.config.ranker import Ranker
from reshelve_airflow.isolation import add_tasks
from reshelve_airflow.policies import Tag, defaults, rankers
from reshelve_airflow.watch import AlertOperator, AskedOperator, LookOperator

# A key of a look's result, the param of the DAG of that name that it becomes, why, and what makes the run another one:
# a night is started once for its day, a release whenever one waited.
ASKED: tuple[tuple[str, str, dict[str, str], str], ...] = (
    ("retrain", "partition", {"note": "the watch found drift"}, ""),
    ("release", "version", {"reason": "the release freeze is over"}, "__{{ run_id }}"),
)


def watch(ranker: Ranker) -> None:
    """The tasks of one ranker: look, tell people, ask other DAGs."""
    look: Any = LookOperator(
        task_id=f"watch_{ranker.name}",
        verb="monitor",
        options={"ranker": ranker.name},
        skip_when={"released": False},
        owner=ranker.owner,
    )
    AlertOperator(task_id=f"alert_{ranker.name}", look=look.output, owner=ranker.owner)
    for key, param, why, another in ASKED:
        asked = AskedOperator(
            task_id=f"ask_{key}_{ranker.name}", look=look.output, key=key, owner=ranker.owner
        )
        # Who requested what waited is no other person because the watch begins it.
        said = f"{{{{ ti.xcom_pull(task_ids='{look.task_id}').get('requested_by') or '' }}}}"
        who = {"requested_by": said} if key == "release" else {}
        asked >> TriggerDagRunOperator(
            task_id=f"{key}_{ranker.name}",
            trigger_dag_id=f"{key}_{ranker.name}",
            trigger_run_id=f"watch__{{{{ ti.xcom_pull(task_ids='{asked.task_id}') }}}}{another}",
            conf={param: asked.output, **why, **who},
            logical_date=None,
            skip_when_already_exists=True,
            openlineage_inject_parent_info=False,
            owner=ranker.owner,
        )


dag = DAG(
    "monitor",
    auto_register=False,
    description="Monitor serving, and act on problems",
    doc_md=__doc__,
    schedule="*/10 * * * *",
    catchup=False,
    is_paused_upon_creation=False,  # from the first release on; until then a look finds nothing to look at
    max_active_runs=1,
    max_active_tasks=2,  # of Airflow's four slots on one machine: the looks at four rankers would leave a night none
    dagrun_timeout=timedelta(minutes=30),
    tags=[Tag.RESHELVE, Tag.WATCH],
    # Both tries of a look that hangs are over before the next run is due: it would hold up the looks at all the others.
    default_args={**defaults(), "retries": 1, "execution_timeout": timedelta(minutes=4)},
)
PROBLEMS = add_tasks(dag, rankers(references=False)[0], watch)
