"""The mail of an alert or of a failed task: plain text in `<pre>`, escaped when all that it is made of is known."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.smtp.notifications.smtp import SmtpNotifier

if TYPE_CHECKING:
    from airflow.sdk import Context


class MailNotifier(SmtpNotifier):
    """Airflow's mail with a `text` in place of HTML. What a template puts into the text is escaped as the rest is."""

    # Airflow's annotation says a tuple of its own length.
    template_fields: Sequence[str] = (*SmtpNotifier.template_fields, "text")  # type: ignore[assignment]

    def __init__(self, *, text: str, **kwargs: Any) -> None:
        super().__init__(html_content="", **kwargs)
        self.text = text

    def notify(self, context: Context) -> None:
        """Raises what Airflow's hook raises where the server does not take it."""
        self.html_content = self._escaped()
        super().notify(context)

    async def async_notify(self, context: Context) -> None:
        """The same, in the triggerer."""
        self.html_content = self._escaped()
        await super().async_notify(context)

    def _escaped(self) -> str:
        return f"<pre>{html.escape(self.text)}</pre>"
