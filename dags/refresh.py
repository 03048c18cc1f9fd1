"""
### New products without a night

Takes the model that serves, gives it the newest product list of its source, and publishes that as a version of its own:
nothing is trained, and no click is read. A new item is found by its title at once, an item that is no longer listed goes, all
others keep what was learnt of them. A version whose answers for the items that stay have moved is rejected; one whose new items
do not all come under their own title, or of which too little can be compared, is held; so is one that was taken back before. What is left goes
to `release_<ranker>`, as a night's version does. Where the list has no other titles than the version that serves, the run ends there.

**Param** `allow_removed`: take a list that lacks more than a fifth of the items of the version that serves.

Start it when a new product list was landed, by hand or by Airflow's API. A rollback goes back to the version before, catalogue and
model together.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG

from reshelve.config.ranker import Ranker
from reshelve.kind_registry import kind_of
from reshelve_airflow.forms import RefreshParams
from reshelve_airflow.isolation import dags_of
from reshelve_airflow.nights import DecideReleaseOperator, release_refusal
from reshelve_airflow.params import airflow_params
from reshelve_airflow.policies import Pool, Tag, defaults, rankers
from reshelve_airflow.verb import ReshelveOperator


def refresh(ranker: Ranker) -> None:
    """Refresh, decide, release."""
    published: Any = ReshelveOperator(
        task_id="refresh",
        verb="refresh",
        options={"ranker": ranker.name},
        option_params=["allow_removed"],
        pool=Pool.HEAVY,
    )
    decide = DecideReleaseOperator(
        task_id="decide_release",
        published=published.output,
        refusal=release_refusal("manual", automatic=ranker.release.automatic, asked=True),
    )
    decide >> TriggerDagRunOperator(
        task_id="release",
        trigger_dag_id=f"release_{ranker.name}",
        trigger_run_id="{{ ti.xcom_pull(task_ids='decide_release') }}__{{ run_id }}",
        conf={"version": decide.output, "reason": "a new product list"},
        logical_date=None,
        skip_when_already_exists=True,
        openlineage_inject_parent_info=False,
    )


def refresh_dag(ranker: Ranker) -> DAG:
    """The DAG of one ranker's new product lists."""
    with DAG(
        f"refresh_{ranker.name}",
        auto_register=False,
        description=f"Give {ranker.name} the newest product list, without training",
        doc_md=__doc__,
        schedule=None,
        catchup=False,
        is_paused_upon_creation=False,
        max_active_runs=1,
        dagrun_timeout=timedelta(hours=12),  # a night's: it may have to wait for one in the pool
        tags=[Tag.RESHELVE, Tag.RELEASE],
        default_args=defaults(ranker.owner),
        params=airflow_params(RefreshParams),
    ) as dag:
        refresh(ranker)
    return dag


made, PROBLEMS = dags_of(
    [ranker for ranker in rankers()[0] if kind_of(ranker.kind).refreshed_from], refresh_dag
)
globals().update(made)
