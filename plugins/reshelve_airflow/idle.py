"""Tasks that have nothing to do in this run: known by the task before them, they are skipped without a process of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException, DownstreamTasksSkipped

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context


class Idle:
    """A task that can tell by what the task before it knows whether it has anything to do."""

    def why_idle(self, known: Mapping[str, Any]) -> str:
        """Why there is nothing to do; empty where there is."""
        raise NotImplementedError

    def skip_if_idle(self, known: Mapping[str, Any]) -> None:
        """The same for a task that was started after all, by a person who cleared it. Raises AirflowSkipException."""
        if why := self.why_idle(known):
            self.log.info("skipped: %s", why)  # type: ignore[attr-defined]  # Airflow does not log a skip's own words
            raise AirflowSkipException(why)


def skip_idle(task: BaseOperator, context: Context, result: Any, known: Mapping[str, Any]) -> None:
    """End `task` with `result`, and skip those right after it that have nothing to do; return where all have.

    A process that only finds that out costs a second of the machine. Raises DownstreamTasksSkipped, which is a success.
    """
    idle = {
        after.task_id: why
        for after in task.downstream_list
        if isinstance(after, Idle) and (why := after.why_idle(known))
    }
    if not idle:
        return
    for name, why in sorted(idle.items()):
        task.log.info("%s is skipped: %s", name, why)
    context["ti"].xcom_push(key="return_value", value=result)
    raise DownstreamTasksSkipped(tasks=sorted(idle))
