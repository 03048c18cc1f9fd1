"""Who is told, and how: a webhook and e-mail, as Airflow's notifiers. Addresses are settings, and those of the environment alone.

| variable | |
|---|---|
| `RESHELVE_ALERT_WEBHOOK` | the URL that gets `{"text": …}` as JSON, as chat tools take it |
| `RESHELVE_ALERT_EMAIL` | addresses, with commas between; sent through the connection `smtp_default` |
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow.sdk import BaseNotifier
from airflow.sdk.exceptions import AirflowException

from reshelve.settings import settings

if TYPE_CHECKING:
    from airflow.sdk import Context

WEBHOOK, EMAIL = "RESHELVE_ALERT_WEBHOOK", "RESHELVE_ALERT_EMAIL"
_PATIENCE = 10.0  # seconds
_FAILED = "{{ dag.dag_id }}: {{ ti.task_id }} failed"
_FAILED_TEXT = "run {{ run_id }}, try {{ ti.try_number }}: {{ exception }}"


class WebhookNotifier(BaseNotifier):
    """Posts `{"text": subject and text, …fields}` to the webhook. The URL is a secret: it is in no log and no field."""

    template_fields: Sequence[str] = ("subject", "text")

    def __init__(
        self, *, subject: str, text: str, fields: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.subject = subject
        self.text = text
        self.fields = dict(fields or {})

    def notify(self, context: Context) -> None:
        """Raises AirflowException where the webhook does not take it."""
        url = settings().alert_webhook.get_secret_value()
        if urlsplit(url).scheme not in ("http", "https"):
            raise AirflowException(f"{WEBHOOK} is no http(s) address")
        body = {**self.fields, "subject": self.subject, "text": f"{self.subject}\n{self.text}"}
        request = urllib.request.Request(
            url, json.dumps(body, default=str).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=_PATIENCE) as answer:
                answer.read(1)
        except urllib.error.HTTPError as error:
            raise AirflowException(f"the webhook answered {error.code}") from None
        except (urllib.error.URLError, OSError) as error:
            why = getattr(error, "reason", error)
            raise AirflowException(f"the webhook is not reached: {why}") from None


def notifiers(subject: str, text: str, fields: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Name → notifier, of those whose variable is set."""
    found: dict[str, Any] = {}
    if settings().alert_webhook.get_secret_value():
        found["webhook"] = WebhookNotifier(subject=subject, text=text, fields=fields)
    if settings().alert_email:
        from airflow.providers.smtp.notifications.smtp import SmtpNotifier

        addresses = [address.strip() for address in settings().alert_email.split(",") if address.strip()]
        found["e-mail"] = SmtpNotifier(
            to=addresses, subject=subject, html_content=f"<pre>{_escaped(text)}</pre>"
        )
    return found


def on_failure() -> list[Any]:
    """Callbacks for a task that fails after its last retry; none where nobody is to be told."""
    return list(notifiers(_FAILED, _FAILED_TEXT).values())


def _escaped(text: str) -> str:
    """For HTML; braces too, which the notifier would take for a template."""
    if text == _FAILED_TEXT:
        return text
    for mark, name in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("{", "&#123;"), ("}", "&#125;")):
        text = text.replace(mark, name)
    return text
