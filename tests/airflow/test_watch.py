"""What follows a look: who is told, and when a night is started. The webhook and the mailbox are real servers."""

from __future__ import annotations

import email
import email.policy
import json
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from airflow.sdk import DAG, BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowSkipException, DownstreamTasksSkipped

from reshelve.settings import settings
from reshelve_airflow.idle import skip_idle
from reshelve_airflow.notifiers import EMAIL, WEBHOOK, notifiers, on_failure
from reshelve_airflow.watch import AlertOperator, AskedOperator

pytestmark = pytest.mark.slow

LOOK = {
    "headline": "search: bad version → roll back",
    "action": "roll back",
    "reason": "version 3: 9% of the requests fail",
    "refused": "",
    "done": "version 2 serves again in place of 3",
    "findings": ["bad version: version 3: 9% of the requests fail", "dead agent: agent <b> {{ x }}"],
    "held": "",
    "alert": True,
    "retrain": None,
}


@pytest.fixture(autouse=True)
def fresh_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """What a test sets in the environment holds for it alone."""
    for name in (WEBHOOK, EMAIL):
        monkeypatch.delenv(name, raising=False)
    settings.cache_clear()
    yield monkeypatch
    settings.cache_clear()


class Hook:
    """A chat tool's webhook."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self.answer = 200
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                hook.heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(hook.answer)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/secret-token"


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    made = Hook()
    monkeypatch.setenv(WEBHOOK, made.url)
    settings.cache_clear()
    yield made
    made.server.shutdown()


class Mailbox(socketserver.StreamRequestHandler):
    """A mail server, as far as RFC 5321 needs one for one message without log-in."""

    letters: ClassVar[list[tuple[list[str], str]]] = []  # recipients, message

    def handle(self) -> None:
        recipients: list[str] = []
        self.wfile.write(b"220 mail\r\n")
        while line := self.rfile.readline().decode().strip():
            verb = line[:4].upper()
            if verb == "RCPT":
                recipients.append(line.partition("<")[2].partition(">")[0])
            if verb == "DATA":
                self.wfile.write(b"354 go on\r\n")
                message = iter(lambda: self.rfile.readline().decode(), ".\r\n")
                self.letters.append((recipients, "".join(message)))
            self.wfile.write(b"221 bye\r\n" if verb == "QUIT" else b"250 good\r\n")
            if verb == "QUIT":
                return


@pytest.fixture
def letters(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[list[str], str]]]:
    monkeypatch.setattr(Mailbox, "letters", [])
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Mailbox) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        options = "disable_ssl=true&disable_tls=true&from_email=reshelve%40example.org"
        monkeypatch.setenv(
            "AIRFLOW_CONN_SMTP_DEFAULT", f"smtp://127.0.0.1:{server.server_address[1]}/?{options}"
        )
        monkeypatch.setenv(EMAIL, "anna@example.org, ben@example.org")
        settings.cache_clear()
        yield Mailbox.letters
        server.shutdown()


def test_a_letter_arrives_with_what_was_found_and_done(letters: list[tuple[list[str], str]]) -> None:
    assert AlertOperator(task_id="alert", look=LOOK).execute({}) == ["e-mail"]  # type: ignore[arg-type]
    ((recipients, message),) = letters
    letter = email.message_from_string(message, policy=email.policy.default)
    assert recipients == ["anna@example.org", "ben@example.org"]
    assert letter["From"] == "reshelve@example.org" and letter["Subject"] == LOOK["headline"]
    (part,) = letter.iter_parts()
    assert str(LOOK["done"]) in part.get_content() and "agent &lt;b&gt;" in part.get_content()


def test_what_a_failed_task_says_is_no_markup_in_its_letter(letters: list[tuple[list[str], str]]) -> None:
    (failed,) = on_failure()
    said = "<img src=https://example.org/x> & {{ dag }}"
    failed(
        {
            "dag": DAG("retrain", schedule=None),
            "ti": SimpleNamespace(task_id="train", try_number=1),
            "run_id": "manual__<b>",
            "exception": ValueError(said),
        }
    )
    ((_, message),) = letters
    (part,) = email.message_from_string(message, policy=email.policy.default).iter_parts()
    body = part.get_content()
    assert "run manual__&lt;b&gt;, try 1: &lt;img src=https://example.org/x&gt; &amp; {{ dag }}" in body


def test_the_webhook_is_told_what_was_found_and_done(hook: Hook) -> None:
    assert AlertOperator(task_id="alert", look=LOOK).execute({}) == ["webhook"]  # type: ignore[arg-type]
    (heard,) = hook.heard
    assert heard["subject"] == LOOK["headline"] and heard["action"] == "roll back"
    for part in (LOOK["headline"], LOOK["done"], *LOOK["findings"]):
        assert str(part) in heard["text"]


def test_what_is_not_new_is_not_told(hook: Hook) -> None:
    with pytest.raises(AirflowSkipException, match="nothing new"):
        AlertOperator(task_id="alert", look={**LOOK, "alert": False}).execute({})  # type: ignore[arg-type]
    assert hook.heard == []


def test_a_webhook_that_fails_fails_the_task_without_its_address(
    hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook.answer = 500
    with pytest.raises(AirflowException, match="answered 500") as refused:
        AlertOperator(task_id="alert", look=LOOK).execute({})  # type: ignore[arg-type]
    monkeypatch.setenv(WEBHOOK, "http://127.0.0.1:9/secret-token")
    settings.cache_clear()
    with pytest.raises(AirflowException, match="cannot be reached") as away:
        AlertOperator(task_id="alert", look=LOOK).execute({})  # type: ignore[arg-type]
    monkeypatch.setenv(WEBHOOK, "file:///secret-token")
    settings.cache_clear()
    with pytest.raises(AirflowException, match="no http") as wrong:
        AlertOperator(task_id="alert", look=LOOK).execute({})  # type: ignore[arg-type]
    assert not any("secret-token" in str(error.value) for error in (refused, away, wrong))


def test_nobody_is_told_where_nobody_is_named() -> None:
    settings.cache_clear()
    assert AlertOperator(task_id="alert", look=LOOK).execute({}) == []  # type: ignore[arg-type]
    assert on_failure() == []


def test_mail_goes_to_every_address_and_holds_no_markup_of_strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EMAIL, "anna@example.org, ben@example.org")
    settings.cache_clear()
    mail = notifiers("subject", LOOK["findings"][1])["e-mail"]
    assert mail.to == ["anna@example.org", "ben@example.org"]
    assert mail.text == LOOK["findings"][1]
    (failed,) = on_failure()
    assert "{{ ti.task_id }}" in failed.subject and "{{ exception }}" in failed.text


@pytest.mark.parametrize(("key", "value"), [("retrain", "2011-08-30"), ("release", 20110830001)])
def test_another_dag_is_started_only_where_the_look_asks_for_it(key: str, value: str | int) -> None:
    asked = AskedOperator(task_id="asked", look={**LOOK, key: value}, key=key)
    assert asked.execute({}) == value  # type: ignore[arg-type]
    with pytest.raises(AirflowSkipException, match=f"nothing to {key}"):
        AskedOperator(task_id="asked", look=LOOK, key=key).execute({})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "idle"),
    [
        pytest.param({}, ["release", "retrain"], id="people are told"),
        pytest.param({"alert": False}, ["alert", "release", "retrain"], id="nothing new"),
        pytest.param({"retrain": "2011-08-30", "release": 3}, [], id="all of it"),
    ],
)
def test_a_look_skips_what_it_asks_nothing_of(change: dict[str, Any], idle: list[str]) -> None:
    found = {**LOOK, **change}
    with DAG("monitor", schedule=None):
        look = BaseOperator(task_id="look")
        look >> [
            AlertOperator(task_id="alert", look=look.output),
            *(AskedOperator(task_id=key, look=look.output, key=key) for key in ("retrain", "release")),
        ]
    pushed: dict[str, Any] = {}
    skipped: list[str] = []
    ti = SimpleNamespace(xcom_push=lambda key, value: pushed.update({key: value}))
    try:
        skip_idle(look, {"ti": ti}, found, found)  # type: ignore[typeddict-item]
    except DownstreamTasksSkipped as skip:
        skipped = list(skip.tasks)
    assert skipped == idle
    assert pushed == ({"return_value": found} if idle else {})
