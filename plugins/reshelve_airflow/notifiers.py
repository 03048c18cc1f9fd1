"""Who is told, and how: a webhook, e-mail, Slack and Teams, as Airflow's notifiers. Addresses are settings, and those of the environment alone.

| variable | |
|---|---|
| `RESHELVE_ALERT_WEBHOOK` | the URL that gets `{"text": …}` as JSON, as chat tools take it |
| `RESHELVE_ALERT_EMAIL` | addresses, with commas between; sent through the connection `smtp_default` |
| `RESHELVE_ALERT_SLACK` | a connection of the type slackwebhook, told by Airflow's Slack notifier |
| `RESHELVE_ALERT_TEAMS` | a connection of the type apprise, told by Airflow's Apprise notifier |

A notifier whose extra is not installed is left out with a warning: who is not told must not be what stops a night.
"""

from __future__ import annotations

import json
import logging
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
SLACK, TEAMS = "RESHELVE_ALERT_SLACK", "RESHELVE_ALERT_TEAMS"
_PATIENCE = 10.0  # seconds
_log = logging.getLogger(__name__)
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
            raise AirflowException(f"the webhook cannot be reached: {why}") from None


def notifiers(subject: str, text: str, fields: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Name → notifier, of those whose variable is set."""
    found: dict[str, Any] = {}
    if settings().alert_webhook.get_secret_value():
        found["webhook"] = WebhookNotifier(subject=subject, text=text, fields=fields)
    if settings().alert_email:
        from reshelve_airflow.mail import MailNotifier

        addresses = [address.strip() for address in settings().alert_email.split(",") if address.strip()]
        found["e-mail"] = MailNotifier(to=addresses, subject=subject, text=text)
    for name, variable, make in (("Slack", SLACK, _slack), ("Teams", TEAMS, _teams)):
        connection: str = getattr(settings(), variable.removeprefix("RESHELVE_").lower())
        if not connection:
            continue
        try:
            found[name] = make(connection, subject, text)
        except ImportError:
            _log.warning(
                "%s is set, but its notifier is not installed: pip install -c constraints.txt -e '.[%s]'",
                variable,
                name.lower(),
            )
    return found


def _slack(connection: str, subject: str, text: str) -> Any:
    from airflow.providers.slack.notifications.slack_webhook import SlackWebhookNotifier

    said = f"{subject}\n{text}" if text == _FAILED_TEXT else _literal(f"{subject}\n{text}")
    return SlackWebhookNotifier(slack_webhook_conn_id=connection, text=said, timeout=int(_PATIENCE))


def _teams(connection: str, subject: str, text: str) -> Any:
    from airflow.providers.apprise.notifications.apprise import AppriseNotifier

    as_it_is = text == _FAILED_TEXT
    return AppriseNotifier(
        apprise_conn_id=connection,
        title=subject if as_it_is else _literal(subject),
        body=text if as_it_is else _literal(text),
    )


def _literal(text: str) -> str:
    """Text with braces set apart, so that a notifier takes nothing in it for a template."""
    return text.replace("{{", "{ {").replace("{%", "{ %").replace("{#", "{ #")


def on_failure() -> list[Any]:
    """Callbacks for a task that fails after its last retry; none where nobody is to be told."""
    return list(notifiers(_FAILED, _FAILED_TEXT).values())
