"""Landing as a task: a source's raw files of the day become its partition before it is validated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator, PokeReturnValue
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from reshelve.errors import EXIT_PARTLY_DONE, EXIT_TRY_AGAIN, ConfigurationError
from reshelve.safe_yaml import load_yaml
from reshelve.settings import settings
from reshelve_airflow.verb import VerbTask, checked, small

if TYPE_CHECKING:
    from airflow.sdk import Context


def wait_of(source: str) -> timedelta | None:
    """How long a day's files are waited for; None where the mapping file tells no files of a day by `{date}`.

    A glance at the file: what is wrong with it is said by the tasks that read it.
    """
    try:
        mapping = load_yaml(settings().clickstreams_dir / f"{source}.yaml")
    except ConfigurationError:
        return None
    if not isinstance(mapping, dict) or "{date" not in str(mapping.get("files")):
        return None
    minutes = mapping.get("wait_minutes", 0)
    return timedelta(minutes=minutes if isinstance(minutes, int) and 0 <= minutes <= 300 else 0)


def skip_others(source: str, context: Context) -> None:
    """Skip the task where the run was asked for another source."""
    asked = context["params"].get("source")
    if asked and asked != source:
        raise AirflowSkipException(f"this run was asked for {asked} alone")


class LandSensor(VerbTask, BaseSensorOperator):
    """`reshelve land` of one source and partition, where its mapping file tells the files of a day, or the run asks for it.

    Waits, without holding a slot, until the files are there. Where the verb landed a part (73: rows of another day in these
    files, or another day that holds other rows), what is landed is validated, and the rest is a warning in the log and the result.
    """

    template_fields: Sequence[str] = ("source", "partition")
    ui_color = "#e6f1f2"

    def __init__(self, *, source: str, partition: Any, **kwargs: Any) -> None:
        self.wait = wait_of(source)
        limit = (self.wait or timedelta()) + timedelta(hours=1)  # the task's own words come before
        super().__init__(mode="reschedule", poke_interval=60, timeout=limit.total_seconds(), **kwargs)
        self.source = source
        self.partition = partition

    def poke(self, context: Context) -> bool | PokeReturnValue:
        """Try once."""
        skip_others(self.source, context)
        if self.wait is None and not context["params"].get("land"):
            said = f"{self.source}: `files` of its mapping has no {{date}}, so its days are landed when somebody asks for it"
            self.log.info("skipped: %s", said)
            raise AirflowSkipException(said)
        outcome = self.run_verb("land", {"source": self.source, "partition": self.partition})
        if outcome.code == EXIT_TRY_AGAIN and (outcome.result or {}).get("delivered") is False:
            self._go_on_waiting(context, outcome.headline)
            return False
        if outcome.code == EXIT_PARTLY_DONE and outcome.result:
            self.log.warning("landed in part: %s", outcome.headline)
            result = outcome.result
        else:
            result = checked(outcome, "land", context)
        self._judge_days_before(result, context)
        return PokeReturnValue(is_done=True, xcom_value=small(result))

    def _go_on_waiting(self, context: Context, headline: str) -> None:
        wait = self.wait or timedelta()
        begun = context["ti"].get_first_reschedule_date(context) if wait else None
        if not wait or (begun and datetime.now(UTC) - begun >= wait):
            waited = f" after {wait.total_seconds() / 60:g} minutes" if wait else ""
            raise AirflowFailException(f"reshelve land: {headline}{waited}")

    def _judge_days_before(self, result: Mapping[str, Any], context: Context) -> None:
        """Rows that came late reopen the verdict of their day, and a night waits for that of every day it reads."""
        first = result.get("first") or self.partition
        if first < self.partition:
            before = datetime.fromisoformat(self.partition).date() - timedelta(days=1)
            days = {"source": self.source, "from": first, "to": before.isoformat()}
            outcome = self.run_verb("validate", days)
            if outcome.may_retry:
                checked(outcome, "validate", context)
            elif outcome.code:
                self.log.warning("a day before has no verdict to go on with: %s", outcome.headline)
