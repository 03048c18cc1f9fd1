"""
### One day of clickstream

Validates the day's partition of every source in `include/clickstreams/`: Great Expectations checks it, bad rows go
to quarantine, and a verdict is written beside the data. `retrain_<ranker>` waits for that verdict. Each task links to
its validation report and to Great Expectations' Data Docs.

| verdict | this DAG | the night of a ranker that reads the source |
|---|---|---|
| pass, warn | success | runs |
| stop | fails, without retry | fails at once |
| missing (nothing landed) | skipped | skipped |

**Partition**: the day before the run, `YYYY-MM-DD` in UTC. By hand: a partition key or the param `partition`.
**Backfill**: `airflow backfill create --dag-id clickstream --from-date 2011-08-29 --to-date 2011-08-31
--max-active-runs 1` handles the three days.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from reshelve_airflow.nights import PartitionOperator
from reshelve_airflow.params import ClickstreamParams, airflow_params
from reshelve_airflow.policies import START_DATE, Pool, Tag, defaults, sources
from reshelve_airflow.reports import ValidateOperator
from reshelve_airflow.timetable import NightTimetable

with DAG(
    "clickstream",
    description="Validate one day of every clickstream source",
    doc_md=__doc__,
    schedule=NightTimetable("0 2 * * *", first=START_DATE),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=6),
    tags=[Tag.RESHELVE, Tag.DATA],
    default_args=defaults(),
    params=airflow_params(ClickstreamParams),
):
    partition = PartitionOperator(task_id="partition")
    for source in sources():
        ValidateOperator(
            task_id=f"validate_{source}",
            source=source,
            partition=partition.output,
            pool=Pool.HEAVY,
        )
