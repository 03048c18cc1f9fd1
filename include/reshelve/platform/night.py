"""One night on this machine: land the data, let the scheduler run the DAGs, watch, and sum up."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, date, datetime, timedelta

from reshelve.clickstream.events import landed_prefix
from reshelve.config.ranker import Ranker
from reshelve.deployments.deployment_log import read_pointer
from reshelve.errors import (
    EXIT_CONFIGURATION,
    EXIT_DATA,
    EXIT_PARTLY_DONE,
    ConfigurationError,
    DataError,
    PartlyDoneError,
    ReshelveError,
    TryAgainError,
)
from reshelve.lineage.results import PublishResult
from reshelve.lineage.run import Run
from reshelve.logs import logger
from reshelve.pipeline.pinned_night import begun
from reshelve.pipeline.references import load_ranker
from reshelve.platform import machine as platform
from reshelve.platform.airflow_client import AirflowClient, DagRun, Task
from reshelve.platform.configuration import machine
from reshelve.platform.progress import Display, current_losses, display
from reshelve.platform.summary import print_summary
from reshelve.platform.supervisor import Supervisor
from reshelve.processes import guarded, only_one
from reshelve.settings import settings
from reshelve.store import objects
from reshelve.training.installed import need_horovod

# Every committed sample ends with these two days; before them it has the history they need.
_LAST_TWO = (date(2011, 8, 30), date(2011, 8, 31))
SAMPLE_NIGHTS = dict.fromkeys(("retail", "searches", "ads"), _LAST_TWO)

DEFAULT = "recommend"  # the Makefile's RANKER
MOST_MINUTES = 25
_VERB_SECONDS = 1800.0  # on an idle machine a history of two months takes two minutes to judge


def run(ranker: str, partition: date | None) -> None:
    """Run the sample's first night, or sum up the newest one that was run; otherwise as `night`."""
    _night(ranker, partition, _newest_or_first)


def night(ranker: str, partition: date | None) -> None:
    """Run one night of `ranker` and print its summary; a night that was done before is only summed up.

    Without a partition it is the sample's next one. Raises ReshelveError with the failed task's log.
    """
    _night(ranker, partition, _next)


def _night(
    ranker: str, partition: date | None, choose: Callable[[Sequence[date], Sequence[date]], date]
) -> None:
    began = time.monotonic()
    spec = load_ranker(ranker)
    need_horovod()  # half a night later it would say so too
    platform.up()
    _use_platform()
    day = partition or _sample_night(spec, choose)
    log = logger(stage="night", ranker=ranker, partition=day.isoformat())
    work = Run.of(spec, day)
    if _is_done(work):
        log.info("this night was done before; its results are below")
    else:
        with _one_night(work):
            _land(spec, day)
            work = _let_the_scheduler_run(work, time.monotonic() + MOST_MINUTES * 60)
        log.info("the night is over", seconds=round(time.monotonic() - began))
    print_summary(work, machine(), seconds=time.monotonic() - began, following=_command_after(spec, day))


def _one_night(run: Run) -> AbstractContextManager[None]:
    """One command at a time lands and follows a night here. Raises AlreadyRunningError naming the other's night."""
    here = machine()
    now = datetime.now(UTC).isoformat(timespec="minutes")
    about = f"the night of {run.partition} of {run.ranker.name} began at {now} (process {os.getpid()})"
    return only_one(
        here.home / ".night.lock",
        "night",
        f"{about}: wait for it to finish, or follow it at {here.airflow_url}",
    )


def _use_platform() -> None:
    """This process and its children work on the local platform, whatever the shell says."""
    os.environ.update(platform.environment())
    settings.cache_clear()
    objects.object_store.cache_clear()


def _sample_night(ranker: Ranker, choose: Callable[[Sequence[date], Sequence[date]], date]) -> date:
    """One of the sample's nights, chosen by which of them are done. Raises ConfigurationError for another source."""
    nights = SAMPLE_NIGHTS.get(ranker.data.source)
    if nights is None:
        raise ConfigurationError(
            f"which night? {ranker.data.source} is not one of the project's samples",
            f"name the day: make night RANKER={ranker.name} PARTITION=YYYY-MM-DD",
        )
    return choose(nights, [day for day in nights if _is_done(Run.of(ranker, day))])


def _newest_or_first(nights: Sequence[date], done: Sequence[date]) -> date:
    return done[-1] if done else nights[0]


def _next(nights: Sequence[date], done: Sequence[date]) -> date:
    return next((day for day in nights if day not in done), nights[-1])


def _command_after(ranker: Ranker, day: date) -> str:
    """What a person types for the night after that of `day`: the samples know their own next night."""
    named = "" if ranker.name == DEFAULT else f" RANKER={ranker.name}"
    if ranker.data.source in SAMPLE_NIGHTS:
        return f"make night{named}"
    return f"make night{named} PARTITION={day + timedelta(days=1)}"


def _is_done(run: Run) -> bool:
    """Whether nothing is left to do: published and, where the gate and the ranker file say so, released."""
    published = run.stage("publish").read(PublishResult)
    if published is None:
        return False
    if not _releases(run):
        return True
    pointer = read_pointer(run.store, run.ranker.name)
    if pointer is None or pointer.stable is None:
        return False
    # A version that was rolled back, or overtaken, stays that way.
    version = published.version
    return version is not None and (version in pointer.wanted or pointer.stable > version)


def _releases(run: Run) -> bool:
    """Whether a finished night's version is to be released without a person's word."""
    published, rules = run.stage("publish").require(PublishResult), run.ranker.release
    promoted = published.published and published.verdict == "promote"
    return promoted and rules.automatic and not rules.approval


def _land(ranker: Ranker, day: date) -> None:
    """Land the source up to `day`, and check the history before it in one process."""
    source = ranker.data.source
    first = day - timedelta(days=ranker.data.window_days - 1)
    try:
        _verb("land", "--source", source, "--to", day.isoformat())
    except PartlyDoneError as error:
        logger(stage="night").warning(
            "some days already have other rows and are left unchanged", why=error.headline
        )
    if not any(objects.object_store().list(landed_prefix(source, day))):
        raise DataError(
            f"{source} has no rows on {day}, so there is no night to run", "choose another PARTITION"
        )
    yesterday = day - timedelta(days=1)
    try:
        _verb("validate", "--source", source, "--from", first.isoformat(), "--to", yesterday.isoformat())
    except DataError as error:
        # A stopped day of the history is left out of the examples; only tonight's own day stops the night.
        logger(stage="night").warning("a day of the history was stopped", why=error.headline)


def _verb(*arguments: str) -> None:
    """Run a verb in a process of its own (its imports are heavy). Raises what its exit code says; TryAgainError where it takes too long."""
    command = [sys.executable, "-m", "reshelve.cli", *arguments, "--json"]
    environment = {**os.environ, "RESHELVE_DIE_WITH_PARENT": "1"}
    try:
        done = subprocess.run(
            guarded(command), env=environment, stdout=subprocess.PIPE, check=False, timeout=_VERB_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise TryAgainError(
            f"reshelve {' '.join(arguments)} did not end within {_VERB_SECONDS / 60:g} minutes",
            "the machine may have much else to do; what was done is kept, and the same command goes on from there",
        ) from error
    if done.returncode:
        raise _kind(done.returncode)(f"reshelve {' '.join(arguments)} failed; the reason is above")


def _let_the_scheduler_run(run: Run, deadline: float) -> Run:
    """clickstream, then retrain, then the release that it asks for. The run as the scheduler began it: the ranker file
    may have been edited by then, or other code deployed.
    """
    here = machine()
    client = AirflowClient(here.airflow_url, "admin", here.secrets.passwords["admin"])
    name = run.ranker.name
    names = ("clickstream", f"retrain_{name}", f"release_{name}")
    for dag in names:
        client.wait_for_dag(dag)
        client.unpause(dag)
    with display() as shown:
        watch = _Watch(client, shown, run, deadline)
        source = run.ranker.data.source  # what else landed that day is its own rankers' affair
        watch.until_ended(client.trigger(names[0], run.partition, source=source))
        night = client.trigger(names[1], run.partition)
        watch.until_ended(night)
        if (id_ := client.night_of(night)) is not None:
            run = begun(name, run.partition.isoformat(), id_)
        if run.stage("publish").result() is not None and _releases(run):
            watch.until_ended(
                watch.find_release(names[2], run.stage("publish").require(PublishResult).version or 0)
            )
    return run


class _Watch:
    """Follows the night's DAG runs one after the other, and starts again what dies of the platform meanwhile."""

    def __init__(self, client: AirflowClient, shown: Display, run: Run, deadline: float) -> None:
        self._client = client
        self._shown = shown
        self._run = run
        self._deadline = deadline
        self._supervisor = Supervisor(machine().home)
        self._before: list[Task] = []  # tasks of the DAG runs that have ended

    def until_ended(self, dag_run: DagRun) -> None:
        """Show the run until it ends. Raises ReshelveError, of the kind that its verb named, with the failed task's log."""
        tasks: list[Task] = []

        def ended() -> bool:
            nonlocal dag_run, tasks
            tasks = self._client.tasks(dag_run)
            dag_run = self._client.run(dag_run)
            losses = current_losses(settings().work, self._run.ranker.name, self._run.partition)
            self._shown.update(self._before + tasks, losses)
            return dag_run.ended

        self._poll(ended, f"{dag_run.dag} ({dag_run.id})")
        tasks = self._client.tasks(dag_run)
        self._shown.update(self._before + tasks, {})
        self._before += tasks
        if dag_run.state == "failed":
            raise self._failure(dag_run, tasks)

    def find_release(self, dag: str, version: int) -> DagRun:
        """The release run of `version`, which the retrain run asks for when it ends."""
        found: list[DagRun] = []

        def there() -> bool:
            found.extend(
                run for run in self._client.runs(dag) if str(run.conf.get("version")) == str(version)
            )
            return bool(found)

        self._poll(there, f"a run of {dag} for version {version}", seconds=60)
        return found[0]

    def _poll(self, done: Callable[[], bool], what: str, seconds: float | None = None) -> None:
        """Look every second until `done()`, through restarts of Airflow. Raises TryAgainError at the deadline."""
        deadline = min(self._deadline, time.monotonic() + seconds) if seconds else self._deadline
        while True:
            problem = self._supervisor.look_on()
            try:
                if done():
                    return
            except TryAgainError as error:
                problem = str(error)  # Airflow may be busy or starting again: the deadline bounds the wait
            if time.monotonic() > deadline:
                raise TryAgainError(
                    f"{what} did not end in time",
                    problem or "run `make night` again: it continues where it stopped",
                )
            time.sleep(1)

    def _failure(self, dag_run: DagRun, tasks: list[Task]) -> ReshelveError:
        """What failed, with its log; whether a retry helps is what the task's verb said."""
        failed = [task for task in tasks if task.state == "failed"]
        if not failed:
            return TryAgainError(
                f"{dag_run.dag} failed", f"see {self._client.url}/dags/{dag_run.dag}/runs/{dag_run.id}"
            )
        task = failed[0]
        page = f"{self._client.url}/dags/{task.dag}/runs/{task.run}/tasks/{task.id}"
        return _kind(self._client.exit_code(task))(
            f"{task.dag}: {task.label} failed", f"{self._client.log(task)}\n\nThe whole log: {page}"
        )


def _kind(exit_code: int | None) -> type[ReshelveError]:
    """The kind of error that a verb's exit code stands for; whatever is not known may be tried again."""
    kinds: dict[int | None, type[ReshelveError]] = {
        EXIT_DATA: DataError,
        EXIT_PARTLY_DONE: PartlyDoneError,
        EXIT_CONFIGURATION: ConfigurationError,
    }
    return kinds.get(exit_code, TryAgainError)
