"""
### Keep what is needed, delete the rest

Once a day. Per source: deletes the days that it keeps no longer (`keep_days`). Per ranker: deletes published versions
beyond `release.keep` and old work; never what is stable, previous, canary or newest. What would go can be read first:
`reshelve expire --source retail`, `reshelve housekeeping --ranker search`.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from reshelve.config.ranker import Ranker
from reshelve_airflow.isolation import add_tasks
from reshelve_airflow.policies import START_DATE, Tag, defaults, rankers, sources
from reshelve_airflow.timetable import NightTimetable
from reshelve_airflow.verb import ReshelveOperator


def clean(ranker: Ranker) -> None:
    """What one ranker keeps no longer."""
    ReshelveOperator(
        task_id=f"clean_{ranker.name}",
        verb="housekeeping",
        options={"ranker": ranker.name, "dry-run": False},
    )


with DAG(
    "housekeeping",
    auto_register=False,
    description="Delete old versions and runs",
    doc_md=__doc__,
    schedule=NightTimetable("0 5 * * *", first=START_DATE),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=3),
    tags=[Tag.RESHELVE, Tag.UPKEEP],
    default_args=defaults(),
) as dag:
    for source in sources():
        ReshelveOperator(
            task_id=f"expire_{source}",
            verb="expire",
            options={"source": source, "dry-run": False},
        )
PROBLEMS = add_tasks(dag, rankers(references=False)[0], clean)
