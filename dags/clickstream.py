"""
### One day of clickstream

Lands the day's raw files of every source in `include/clickstreams/` whose mapping tells them by a `{date}`, then validates the
day's partition of every source: Great Expectations checks it, bad rows go to quarantine, and a verdict is written beside the data.
`retrain_<ranker>` waits for that verdict. Each task links to its validation report and to Great Expectations' Data Docs.

| landing | `land_<source>` | then |
|---|---|---|
| done, or the same rows were there | success | validated |
| a part (73): rows of other days, or another day that holds other rows | success, with a warning | what is landed is validated |
| no file after `wait_minutes` | fails, without retry | not validated: nothing has landed |
| the day holds other rows, or the files are bad | fails, without retry | not validated again |
| the mapping has no `{date}` | skipped, unless *land* asks for it | validated |

| verdict | this DAG | the night of a ranker that reads the source |
|---|---|---|
| pass, warn | success | runs |
| stop | fails, without retry | fails at once |
| missing (nothing landed) | skipped | skipped |

A day is landed when it has ended by the clocks of its source (`time_zone`), and its files are waited for from then on.

**By hand**: *source* keeps the run to one source; *land* lands the day from the raw files of any source.

**Partition**: the day before the run, `YYYY-MM-DD` in UTC. By hand: a partition key or the param `partition`.
**Backfill**: `airflow backfill create --dag-id clickstream --from-date 2011-08-29 --to-date 2011-08-31
--max-active-runs 1` handles the three days.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, TriggerRule

from reshelve_airflow.forms import clickstream_params
from reshelve_airflow.landing import LandSensor
from reshelve_airflow.nights import PartitionOperator
from reshelve_airflow.params import airflow_params
from reshelve_airflow.policies import START_DATE, Pool, Tag, defaults, sources
from reshelve_airflow.reports import ValidateOperator
from reshelve_airflow.timetable import NightTimetable

with DAG(
    "clickstream",
    description="Land and validate one day of every clickstream source",
    doc_md=__doc__,
    schedule=NightTimetable("0 2 * * *", first=START_DATE),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=20),  # a day in the west ends twelve hours later, and may be waited for
    tags=[Tag.RESHELVE, Tag.DATA],
    default_args=defaults(),
    params=airflow_params(clickstream_params(sources())),
):
    partition = PartitionOperator(task_id="partition")
    for source in sources():
        landed = LandSensor(
            task_id=f"land_{source}", source=source, partition=partition.output, pool=Pool.HEAVY
        )
        landed >> ValidateOperator(
            task_id=f"validate_{source}",
            source=source,
            partition=partition.output,
            pool=Pool.HEAVY,
            trigger_rule=TriggerRule.NONE_FAILED,
        )
