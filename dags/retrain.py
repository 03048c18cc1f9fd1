"""
### A night of one ranker

Waits for the verdict on the day's partition of the ranker's source, then: training examples · hyperparameter tuning ·
fine-tuning · for searches the blend with what was chosen before · compression · packaging · gate · publication. A
version the gate promotes is handed to `release_<ranker>`. Beside that a report is made of whatever was done: the task
`report` has a link to it, and its log ends with the address. Where `RESHELVE_MLFLOW_TRACKING_URI` names a server, the task
`track` sends the night there; it never is a reason for a night to fail.

**Partition**: the day before the run, `YYYY-MM-DD` in UTC. By hand: a partition key or the param `partition`.

**Params** of a run started by hand replace values of the ranker file for every stage of that run. Empty ones keep them.
With `plan` the run only shows, in the log of its first task, what it would do, reuse, take and cost; the rest is skipped.

**Pinned**: the first task, `night`, fixes the ranker file, the params and the code for all tasks after it, retries and cleared
tasks included. What is edited or deployed meanwhile is for the next night; clear `night` with all after it to take it at once.

**Retries** resume: a stage that is done is not done again. Bad data and bad configuration are never retried.

**Backfill**: `airflow backfill create --dag-id retrain_search --from-date 2011-09-26 --to-date 2011-09-28
--max-active-runs 1` publishes the candidates of three nights. A backfill never releases.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG, TaskGroup, TriggerRule

from reshelve.config.ranker import Ranker
from reshelve.config.waves import wave_count
from reshelve.kind_registry import kind_of
from reshelve.platform.airflow_client import NIGHT
from reshelve.settings import settings
from reshelve_airflow.forms import retrain_params
from reshelve_airflow.isolation import dags_of
from reshelve_airflow.nights import DecideReleaseOperator, NightOperator
from reshelve_airflow.params import airflow_params
from reshelve_airflow.policies import START_DATE, Pool, Tag, defaults, rankers
from reshelve_airflow.reports import ReportOperator, TrackOperator
from reshelve_airflow.timetable import NightTimetable
from reshelve_airflow.verb import ReshelveOperator, VerdictSensor

# The evaluations may have been skipped (nothing was asked for, or a trial was left out), the asking may not.
GO_ON = TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS


def tuning_tasks(
    ranker: Ranker, rounds: int, options: dict[str, Any]
) -> tuple[ReshelveOperator, ReshelveOperator]:
    """Rounds of ask → evaluate (mapped over the trials asked for) → …, closed by tell: (first, last) task.

    An empty ask (tuning is over) skips its evaluations and nothing else. A trial that fails to the last retry
    is left out: it must not cost the night.
    """
    with TaskGroup("tune", tooltip="Hyperparameter tuning"):
        first = last = None
        finished: list[Any] = []
        for number in range(1, rounds + 1):
            ask = ReshelveOperator(
                task_id=f"ask_{number}",
                verb="tune ask",
                options=options,
                options_from=NIGHT,
                returns="trials",
                trigger_rule=GO_ON if finished else TriggerRule.ALL_SUCCESS,
            )
            evaluate = ReshelveOperator.partial(
                task_id=f"evaluate_{number}",
                verb="tune evaluate",
                options=options,
                options_from=NIGHT,
                may_be_left_out=True,
                pool=Pool.HEAVY,
                max_active_tis_per_dagrun=ranker.tuning.parallel,
                map_index_template="trial {{ task.more['trial'] }}",
            ).expand(more=ask.output.map(lambda trial: {"trial": trial}))
            finished >> ask
            finished = [ask, evaluate]
            first = first or ask
        last = ReshelveOperator(
            task_id="tell", verb="tune tell", options=options, options_from=NIGHT, trigger_rule=GO_ON
        )
        finished >> last
    assert first
    return first, last


def night(ranker: Ranker) -> None:
    """The tasks of one ranker's night."""
    rounds = max(1, wave_count(ranker.tuning))
    begin = NightOperator(task_id=NIGHT, ranker=ranker, rounds=rounds)
    said: Any = begin.output  # typed as an XComArg without keys
    options = {"ranker": ranker.name}
    verdict = VerdictSensor(
        task_id="await_verdict",
        source=said["source"],
        partition=said["partition"],
        poke_interval=30,
        timeout=timedelta(hours=3).total_seconds(),
    )

    def stage(verb: str, pool: Pool = Pool.HEAVY) -> ReshelveOperator:
        return ReshelveOperator(task_id=verb, verb=verb, options=options, options_from=NIGHT, pool=pool)

    examples = stage("examples")
    ask, tell = tuning_tasks(ranker, rounds, options)
    train = stage("train", Pool.ACCELERATOR)
    publish = stage("publish")
    begin >> verdict >> examples >> ask
    tell >> train
    learned = train
    for own in kind_of(ranker.kind).stages:
        learned >> (learned := stage(own.name))
    learned >> stage("compress") >> stage("package") >> stage("gate") >> publish
    # Once nothing more is coming, of a night that ended early too; but not of one that was skipped.
    beside: dict[str, Any] = {
        "options": options,
        "options_from": NIGHT,
        "execution_timeout": timedelta(minutes=10),
    }
    once = TriggerRule.ALL_DONE_MIN_ONE_SUCCESS
    report = ReportOperator(task_id="report", pool=Pool.HEAVY, trigger_rule=once, **beside)
    [examples, publish] >> report
    if settings().tracking_uri:
        short = {**beside, "execution_timeout": timedelta(minutes=3), "retries": 1}
        [examples, publish, report] >> TrackOperator(task_id="track", trigger_rule=once, **short)
    decide = DecideReleaseOperator(
        task_id="decide_release", published=publish.output, refusal=said["refusal"]
    )
    decide >> TriggerDagRunOperator(
        task_id="release",
        trigger_dag_id=f"release_{ranker.name}",
        trigger_run_id="{{ ti.xcom_pull(task_ids='decide_release') }}__{{ run_id }}",
        conf={"version": decide.output, "reason": said["note"], "run": said["run"]},
        logical_date=None,
        skip_when_already_exists=True,
        openlineage_inject_parent_info=False,
    )


def night_dag(ranker: Ranker) -> DAG:
    """The DAG of one ranker's nights."""
    with DAG(
        f"retrain_{ranker.name}",
        auto_register=False,
        dag_display_name=f"retrain_{ranker.name}: {ranker.title}",
        description=f"Retrain {ranker.name}: {ranker.title}",
        doc_md=__doc__,
        schedule=NightTimetable(ranker.schedule, first=START_DATE),
        catchup=False,
        max_active_runs=1,
        dagrun_timeout=timedelta(hours=12),  # `pinned_night.LONGEST_NIGHT`
        tags=[Tag.RESHELVE, Tag.TRAINING],
        default_args=defaults(ranker.owner),
        params=airflow_params(retrain_params(ranker)),
    ) as dag:
        night(ranker)
    return dag


made, PROBLEMS = dags_of(rankers()[0], night_dag)
globals().update(made)
