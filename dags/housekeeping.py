"""
### Keep what is needed, delete the rest

Once a day, per ranker: deletes published versions beyond `release.keep` and old work. Never what is stable, previous,
canary or newest. What would go can be read first: `reshelve housekeeping --ranker search`.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from reshelve_airflow.policies import START_DATE, Tag, defaults, rankers
from reshelve_airflow.timetable import NightTimetable
from reshelve_airflow.verb import ReshelveOperator

with DAG(
    "housekeeping",
    description="Delete old versions and old work",
    doc_md=__doc__,
    schedule=NightTimetable("0 5 * * *", first=START_DATE),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=3),
    tags=[Tag.RESHELVE, Tag.UPKEEP],
    default_args=defaults(),
):
    for ranker in rankers()[0]:
        ReshelveOperator(
            task_id=f"clean_{ranker.name}",
            verb="housekeeping",
            options={"ranker": ranker.name, "dry-run": False},
        )
