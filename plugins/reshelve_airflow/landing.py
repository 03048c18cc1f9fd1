"""Landing as a task: a source's raw files of the day become its partition before it is validated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from airflow.sdk import BaseSensorOperator, PokeReturnValue
from airflow.sdk.exceptions import AirflowFailException

from reshelve.config.safe_yaml import load_yaml
from reshelve.errors import EXIT_PARTLY_DONE, EXIT_TRY_AGAIN, ConfigurationError
from reshelve.settings import settings
from reshelve_airflow.idle import Idle
from reshelve_airflow.verb import VerbTask, checked, small

if TYPE_CHECKING:
    from airflow.sdk import Context

_LATEST_END = timedelta(hours=13)  # after the day's end in UTC: west of all is UTC-12


@dataclass(frozen=True)
class Delivery:
    """How the files of a day come: how long they are waited for, by whose clocks the day ends, and how late rows may be."""

    wait: timedelta
    zone: str
    neighbours: int


def delivery_of(source: str) -> Delivery | None:
    """None where the mapping file tells no files of a day by `{date}`.

    A glance at the file: what is wrong with it is said by the tasks that read it.
    """
    try:
        mapping = load_yaml(settings().clickstreams_dir / f"{source}.yaml")
    except ConfigurationError:
        return None
    if not isinstance(mapping, dict) or "{date" not in str(mapping.get("files")):
        return None
    minutes, around = (
        _whole(mapping.get(key), most) for key, most in (("wait_minutes", 300), ("neighbour_days", 7))
    )
    return Delivery(timedelta(minutes=minutes), str(mapping.get("time_zone") or "UTC"), around)


def _whole(value: object, most: int) -> int:
    return value if isinstance(value, int) and 0 <= value <= most else 0


def why_others(source: str, params: Mapping[str, Any]) -> str:
    """Why a run with these params has nothing to do for this source; empty where it has."""
    asked = params.get("source")
    return f"this run was asked for {asked} alone" if asked and asked != source else ""


class LandSensor(Idle, VerbTask, BaseSensorOperator):
    """`reshelve land` of one source and partition, where its mapping file tells the files of a day, or the run asks for it.

    Waits, without holding a slot, until the day has ended by its source's clocks, and then until the files are there. Where the verb landed a part (73: rows of another day in these
    files, or another day that holds other rows), what is landed is validated, and the rest is a warning in the log and the result.
    """

    template_fields: Sequence[str] = ("source", "partition")
    ui_color = "#e6f1f2"

    def __init__(self, *, source: str, partition: Any, **kwargs: Any) -> None:
        self.delivery = delivery_of(source)
        wait = self.delivery.wait if self.delivery else timedelta()
        limit = wait + _LATEST_END + timedelta(hours=1)  # the task's own words come before
        super().__init__(mode="reschedule", poke_interval=60, timeout=limit.total_seconds(), **kwargs)
        self.source = source
        self.partition = partition

    def why_idle(self, known: Mapping[str, Any]) -> str:
        """By the params of the run."""
        if others := why_others(self.source, known):
            return others
        if self.delivery is None and not known.get("land"):
            return f"{self.source}: `files` of its mapping has no {{date}}, so its days are landed when somebody asks for it"
        return ""

    def poke(self, context: Context) -> bool | PokeReturnValue:
        """Try once."""
        self.skip_if_idle(context["params"])
        ends = self._ends()
        if self.delivery and timedelta() < ends - datetime.now(UTC) < _LATEST_END:
            self.log.info("the day is not over yet: it ends at %s", ends.isoformat())
            return False
        outcome = self.run_verb("land", {"source": self.source, "partition": self.partition})
        if outcome.code == EXIT_TRY_AGAIN and (outcome.result or {}).get("delivered") is False:
            self._go_on_waiting(context, outcome.headline)
            return False
        if outcome.code == EXIT_PARTLY_DONE and outcome.result:
            self.log.warning("partly landed: %s", outcome.headline)
            result = outcome.result
        else:
            try:
                result = checked(outcome, "land", context)
            except AirflowFailException:
                self._judge_days_before(
                    {}, context
                )  # rows of theirs may have landed before this day was refused
                raise
        self._judge_days_before(result, context)
        return PokeReturnValue(is_done=True, xcom_value=small(result))

    def _ends(self) -> datetime:
        """When the day is over: until then more files of it may come."""
        try:
            zone = ZoneInfo(self.delivery.zone if self.delivery else "UTC")
        except (ValueError, OSError):  # the verb says what is wrong with it
            return datetime.min.replace(tzinfo=UTC)
        return datetime.combine(date.fromisoformat(self.partition) + timedelta(days=1), time.min, zone)

    def _go_on_waiting(self, context: Context, headline: str) -> None:
        wait = self.delivery.wait if self.delivery else timedelta()
        begun = context["ti"].get_first_reschedule_date(context) if wait else None
        if not wait or (begun and datetime.now(UTC) - max(begun, self._ends()) >= wait):
            waited = f" after {wait.total_seconds() / 60:g} minutes" if wait else ""
            raise AirflowFailException(f"reshelve land: {headline}{waited}")

    def _judge_days_before(self, result: Mapping[str, Any], context: Context) -> None:
        """Rows that came late reopen the verdict of their day, and a night waits for that of every day it reads."""
        around = timedelta(days=self.delivery.neighbours if self.delivery else 0)
        first = result.get("first") or (date.fromisoformat(self.partition) - around).isoformat()
        if first < self.partition:
            before = datetime.fromisoformat(self.partition).date() - timedelta(days=1)
            days = {"source": self.source, "from": first, "to": before.isoformat()}
            outcome = self.run_verb("validate", days)
            if outcome.may_retry:
                checked(outcome, "validate", context)
            elif outcome.code:
                self.log.warning("an earlier day could not be validated again: %s", outcome.headline)
