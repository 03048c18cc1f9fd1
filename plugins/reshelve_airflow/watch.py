"""What follows a look of the watch: people are told, and a night is started where the table says retrain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException

from reshelve_airflow.idle import Idle, skip_idle
from reshelve_airflow.notifiers import notifiers
from reshelve_airflow.verb import ReshelveOperator

if TYPE_CHECKING:
    from airflow.sdk import Context


class LookOperator(ReshelveOperator):
    """`reshelve monitor` of one ranker; skips what its look has no work for."""

    def execute(self, context: Context) -> Any:
        """Look."""
        look = super().execute(context)
        skip_idle(self, context, look, look)
        return look


class AlertOperator(Idle, BaseOperator):
    """Tells people what a look found, by every notifier that is set up; skips where there is nothing new."""

    template_fields: Sequence[str] = ("look",)

    def __init__(self, *, look: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.look = look

    def why_idle(self, known: Mapping[str, Any]) -> str:
        """By the look."""
        return "" if known.get("alert") else f"nothing new: {known.get('headline')}"

    def execute(self, context: Context) -> list[str]:
        """The names of the notifiers that told it; one that fails keeps no other from being told.

        Where none could, the task fails, and its retry tells again.
        """
        self.skip_if_idle(self.look)
        subject, text = str(self.look["headline"]), message(self.look)
        self.log.warning("%s\n%s", subject, text)
        told: list[str] = []
        failed: list[str] = []
        known = notifiers(subject, text, self.look)
        for name, notifier in known.items():
            try:
                notifier.notify(context)
                told.append(name)
            except Exception as error:  # noqa: BLE001  whatever a tool's client raises
                failed.append(f"{name}: {_reason(error)}")
                self.log.warning("not told: %s", failed[-1])
        if failed and not told:
            raise AirflowException("; ".join(failed))
        if not known:
            self.log.info("no alert is sent: no RESHELVE_ALERT_… is set")
        return told


class AskedOperator(Idle, BaseOperator):
    """What a look asks another DAG for, by the key of its result (`retrain`, `release`); a skip where it asks for nothing."""

    template_fields: Sequence[str] = ("look",)

    def __init__(self, *, look: Any, key: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.look = look
        self.key = key

    def why_idle(self, known: Mapping[str, Any]) -> str:
        """By the look."""
        return "" if known.get(self.key) else f"nothing to {self.key}: {known.get('headline')}"

    def execute(self, context: Context) -> str | int:
        """The day or the version."""
        self.skip_if_idle(self.look)
        found: str | int = self.look[self.key]
        return found


def _reason(error: Exception) -> str:
    """Our own notifiers' words; of others the kind alone, for their messages may hold an address that is a secret."""
    return str(error) if type(error) is AirflowException else type(error).__name__


def message(look: Mapping[str, Any]) -> str:
    """A look's result as the text of an alert."""
    lines = [f"decided: {look.get('action')}: {look.get('reason')}"]
    lines += [f"not done: {look['refused']}"] if look.get("refused") else []
    lines += [f"done: {look['done']}"] if look.get("done") else []
    lines += [f"found: {finding}" for finding in look.get("findings", ())]
    lines += [f"releases are frozen: {look['held']}"] if look.get("held") else []
    return "\n".join(lines)
