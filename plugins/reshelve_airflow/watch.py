"""What follows a look of the watch: people are told, and a night is started where the table says retrain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSkipException

from reshelve_airflow.notifiers import notifiers

if TYPE_CHECKING:
    from airflow.sdk import Context


class AlertOperator(BaseOperator):
    """Tells people what a look found, by every notifier that is set up; skips where there is nothing new."""

    template_fields: Sequence[str] = ("look",)

    def __init__(self, *, look: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.look = look

    def execute(self, context: Context) -> list[str]:
        """The names of the notifiers that told it. One that fails fails the task, and its retry tells again."""
        if not self.look.get("alert"):
            raise AirflowSkipException(f"nothing new: {self.look.get('headline')}")
        subject, text = str(self.look["headline"]), message(self.look)
        self.log.warning("%s\n%s", subject, text)
        told = []
        for name, notifier in notifiers(subject, text, self.look).items():
            notifier.notify(context)
            told.append(name)
        if not told:
            self.log.info("nobody is told: neither RESHELVE_ALERT_WEBHOOK nor RESHELVE_ALERT_EMAIL is set")
        return told


class AskedOperator(BaseOperator):
    """What a look asks another DAG for, by the key of its result (`retrain`, `release`); a skip where it asks for nothing."""

    template_fields: Sequence[str] = ("look",)

    def __init__(self, *, look: Any, key: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.look = look
        self.key = key

    def execute(self, context: Context) -> str | int:
        """The day or the version."""
        if not self.look.get(self.key):
            raise AirflowSkipException(f"nothing to {self.key}: {self.look.get('headline')}")
        found: str | int = self.look[self.key]
        return found


def message(look: Mapping[str, Any]) -> str:
    """A look's result as the text of an alert."""
    lines = [f"decided: {look.get('action')}: {look.get('reason')}"]
    lines += [f"not done: {look['refused']}"] if look.get("refused") else []
    lines += [f"done: {look['done']}"] if look.get("done") else []
    lines += [f"found: {finding}" for finding in look.get("findings", ())]
    lines += [f"releases are held: {look['held']}"] if look.get("held") else []
    return "\n".join(lines)
