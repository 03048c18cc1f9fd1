"""Operators that run a verb of the `reshelve` command: stages, and the wait for a verdict."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, BaseSensorOperator, PokeReturnValue
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from reshelve.errors import EXIT_TRY_AGAIN
from reshelve.pipeline import pinned_code
from reshelve.platform.airflow_client import EXIT_CODE
from reshelve.settings import settings
from reshelve_airflow.child import Child, Outcome, verb_command
from reshelve_airflow.forms import refuse_unknown

if TYPE_CHECKING:
    from airflow.sdk import Context

MOST_XCOM_BYTES = 32 * 1024


class VerbTask:
    """Runs a child, streams its log, kills it on cancellation."""

    _child: Child | None = None
    asked: Mapping[str, Any] = MappingProxyType({})  # the verb's options as it was run
    produced: Mapping[str, Any] = MappingProxyType({})  # its result

    def run_verb(self, verb: str, options: Mapping[str, Any]) -> Outcome:
        command = verb_command(verb, options)
        self.log.info("$ reshelve %s", " ".join(command[3:]))  # type: ignore[attr-defined]
        self.asked = options
        self._child = Child(command, pinned(options))
        outcome = self._child.run(self._log_line)
        self.produced = outcome.result or {}
        return outcome

    def on_kill(self) -> None:
        """The supervisor gives five seconds before it kills this process."""
        if self._child:
            self._child.kill()

    def _log_line(self, line: str) -> None:
        level = (
            "error"
            if "[error" in line or line.startswith("reshelve: ")
            else "warning"
            if "[warn" in line
            else "info"
        )
        getattr(self.log, level)("%s", line)  # type: ignore[attr-defined]


class ReshelveOperator(VerbTask, BaseOperator):
    """One verb of the `reshelve` command, in a child process of its own process group.

    `verb`: as typed, `tune ask`. `options`: its options without the dashes; None leaves one out, a bool becomes
    `--x` or `--no-x`, a list repeats it. `options_from`: a task that handed on further options under the key `options`; it is read without being made an
    upstream task, which would defeat trigger rules that ask for one success. `option_params`: params of the run that are
    options too, by name. `more`: further
    options, for `expand`. `returns`: the one key of the result that is handed on (default: the whole small object). `skip_when`: a result with these values skips the task,
    with the result's headline. `may_be_left_out`: after the last retry the task is skipped in place of failing.

    Bad data (65) and bad configuration (78) are never retried, everything else is.
    """

    template_fields: Sequence[str] = ("verb", "options", "more")
    template_fields_renderers = {"options": "json", "more": "json"}  # noqa: RUF012 - Airflow's own attribute
    ui_color = "#e8f4ea"

    def __init__(
        self,
        *,
        verb: str,
        options: Mapping[str, Any] | None = None,
        options_from: str | None = None,
        option_params: Sequence[str] = (),
        more: Mapping[str, Any] | None = None,
        returns: str | None = None,
        skip_when: Mapping[str, Any] | None = None,
        may_be_left_out: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.verb = verb
        self.options = options or {}
        self.options_from = options_from
        self.option_params = tuple(option_params)
        self.more = more or {}
        self.returns = returns
        self.skip_when = skip_when or {}
        self.may_be_left_out = may_be_left_out

    def execute(self, context: Context) -> Any:
        """Run the verb; its result goes to XCom."""
        refuse_unknown(context)
        asked = {name.replace("_", "-"): context["params"][name] for name in self.option_params}
        shared = (
            context["ti"].xcom_pull(task_ids=self.options_from, key="options") if self.options_from else {}
        )
        outcome = self.run_verb(self.verb, {**self.options, **shared, **asked, **self.more})
        if self.may_be_left_out and outcome.may_retry and context["ti"].try_number > context["ti"].max_tries:
            self.log.warning("skipped after the last retry: %s", outcome.headline)
            raise AirflowSkipException(outcome.headline)
        result = checked(outcome, self.verb, context)
        if self.skip_when and all(result.get(key) == value for key, value in self.skip_when.items()):
            self.log.info("skipped: %s", result.get("headline"))  # Airflow does not log a skip's own words
            raise AirflowSkipException(str(result.get("headline")))
        return result[self.returns] if self.returns else small(result)

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """For Airflow's OpenLineage provider, which asks where it is installed and set up."""
        from reshelve_airflow.open_lineage import operator_lineage

        return operator_lineage(self.verb, self.asked, self.produced)


class ResumingOperator(ReshelveOperator):
    """A verb that has to know that it is a retry: the first try may have moved the pointer before it was cut off."""

    def execute(self, context: Context) -> Any:
        """Run the verb, with `--resume` from the second try on."""
        self.options = {**self.options, "resume": context["ti"].try_number > 1}
        return super().execute(context)


class VerdictSensor(VerbTask, BaseSensorOperator):
    """Waits, without holding a slot, until a source's partition has a verdict.

    Pass and warn go on; stop fails at once; missing (nothing has landed) skips the night.
    """

    template_fields: Sequence[str] = ("source", "partition")
    ui_color = "#e6f1f2"

    def __init__(self, *, source: str, partition: Any, **kwargs: Any) -> None:
        super().__init__(mode="reschedule", **kwargs)
        self.source = source
        self.partition = partition

    def poke(self, context: Context) -> bool | PokeReturnValue:
        """Ask once."""
        outcome = self.run_verb("verdict", {"source": self.source, "partition": self.partition})
        if outcome.code == EXIT_TRY_AGAIN:
            return False
        result = checked(outcome, "verdict", context)
        if result["verdict"] == "missing":
            self.log.info("skipped: %s", result.get("headline"))
            raise AirflowSkipException(str(result.get("headline")))
        return PokeReturnValue(is_done=True, xcom_value=result["verdict"])


def pinned(options: Mapping[str, Any]) -> dict[str, str]:
    """The variables with which a stage of a night that has begun starts in the code of then at once, where it is kept here."""
    run = [options.get(key) for key in ("ranker", "partition", "run")]
    if not all(isinstance(part, str) and part for part in run):
        return {}
    copy = pinned_code.kept_code(settings().work.joinpath(*map(str, run)))
    return pinned_code.environment(copy) if copy else {}


def checked(outcome: Outcome, verb: str, context: Context) -> dict[str, Any]:
    """The result of a verb that went well; else the exception that tells Airflow whether to retry.

    The exit code of one that did not is handed on, for whoever asks of the task why it failed.
    """
    if outcome.code != 0:
        context["ti"].xcom_push(key=EXIT_CODE, value=outcome.code)
    if outcome.never_retry:
        raise AirflowFailException(f"reshelve {verb}: {outcome.headline}")
    if outcome.code != 0:
        raise AirflowException(f"reshelve {verb}: {outcome.headline}")
    if outcome.result is None:
        raise AirflowException(f"reshelve {verb}: exited with 0 but printed no JSON object")
    return outcome.result


def small(result: dict[str, Any]) -> dict[str, Any]:
    """`result` without its largest parts where it is too large for XCom; the whole of it is in the object store."""
    kept = dict(result)
    for key in sorted(kept, key=lambda name: len(json.dumps(kept[name], default=str)), reverse=True):
        if len(json.dumps(kept, default=str)) <= MOST_XCOM_BYTES:
            break
        del kept[key]
    return kept
