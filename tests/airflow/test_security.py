"""Every endpoint of the plugin, asked by nobody, a viewer and an analyst. A new one has to be put into the table below."""

from __future__ import annotations

import http.client
import json
import re
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.api_fastapi.auth.managers.models.resource_details import DagDetails
from airflow.api_fastapi.core_api import security
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from tests.airflow.platform_here import AirflowHere
from tests.deployed import put_state, put_version

from reshelve.deployments.deployment_log import Pointer
from reshelve.protocol.reports import Report, Serving, write_report
from reshelve.settings import settings
from reshelve.store.keys import make
from reshelve.store.objects import ObjectStore
from reshelve_airflow.plugin import PREFIX, ReshelvePlugin
from reshelve_airflow.releases import access
from reshelve_airflow.releases.access import DAGS, dag_of

# (method, path) → what a viewer may. Nobody may do anything anywhere.
ENDPOINTS = {
    ("GET", "/releases"): "read",
    ("GET", "/releases/{ranker}"): "read",
    ("GET", "/report/{ranker}/{name}"): "read",
    ("GET", "/validation/{source}/{day}/{name}"): "read",
    ("POST", "/releases/{ranker}/release"): "no",
    ("POST", "/releases/{ranker}/approve"): "no",
    ("POST", "/releases/{ranker}/hold"): "no",
    ("POST", "/releases/{ranker}/rollback"): "no",
}
RANKER = "recommend"
REASON = "a test of who may act"
FORM = {"version": "20110830001", "to": "20110830001", "reason": REASON}


def application() -> FastAPI:
    assert [one["url_prefix"] for one in ReshelvePlugin.fastapi_apps] == [PREFIX]
    return ReshelvePlugin.fastapi_apps[0]["app"].app


def test_every_endpoint_is_in_the_table() -> None:
    app = application()
    routes = [route for route in app.routes if isinstance(route, APIRoute)]
    assert len(routes) == len(app.routes), "something is mounted that is no endpoint of ours"
    found = {(method, route.path) for route in routes for method in route.methods}
    assert found == set(ENDPOINTS)
    assert ReshelvePlugin.flask_blueprints == []
    assert [one["name"] for one in ReshelvePlugin.fastapi_root_middlewares] == ["reshelve pages"]


def test_what_warms_the_pages_puts_nothing_between_a_request_and_airflow(store: ObjectStore) -> None:
    server = FastAPI()
    (only,) = ReshelvePlugin.fastapi_root_middlewares
    assert only["middleware"](server) is server


def test_every_endpoint_asks_who_it_is() -> None:
    from reshelve_airflow.releases.access import editor, ranker_reader, reader

    for route in application().routes:
        assert isinstance(route, APIRoute)
        asked = [dependency.call for dependency in route.dependant.dependencies]
        assert reader in asked, f"{route.path} is open to anyone"
        if "{ranker}" in route.path:
            assert {ranker_reader, editor} & set(asked), (
                f"{route.path} is open to whoever may see another ranker"
            )
        assert route.methods == {"GET"} or editor in asked, f"{route.path} changes things for anyone"


@pytest.mark.parametrize(("who", "acts"), [("7", True), (None, False)], ids=["somebody", "anybody"])
def test_nobody_acts_without_a_name(monkeypatch: pytest.MonkeyPatch, who: str | None, acts: bool) -> None:
    """A log-in may let the public in, with any rights: its user has no id."""
    from reshelve_airflow.releases import access

    asked: list[str] = []

    def is_authorized_dag(*, method: str, access_entity: Any, details: DagDetails, user: Any) -> bool:
        asked.append(f"{method} {details.id}")
        return True

    monkeypatch.setattr(
        access, "get_auth_manager", lambda: SimpleNamespace(is_authorized_dag=is_authorized_dag)
    )
    user: Any = SimpleNamespace(get_id=lambda: who)
    assert bool(access.buttons_of(user, RANKER)) is acts
    assert access.may_see(user, RANKER) is True
    assert asked[-1] == f"GET release_{RANKER}" and ("POST approve_recommend" in asked) is acts


class OneDag:
    """An auth manager with permissions per DAG, as FAB or Keycloak have them."""

    def __init__(self, dag: str) -> None:
        self.dag = dag

    def is_authorized_dag(self, *, method: str, access_entity: Any, details: Any, user: Any) -> bool:
        return access_entity is not None and (method, access_entity.value, details.id) == (
            "POST",
            "RUN",
            self.dag,
        )


@pytest.mark.parametrize("button", list(DAGS))
def test_a_button_is_for_who_may_start_its_dag_of_this_ranker(
    button: str, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the real dependency of every route: what is not allowed is refused before anything else is looked at."""
    manager = OneDag(dag_of(button, RANKER))
    ben: Any = SimpleNamespace(get_id=lambda: "2", get_name=lambda: "ben")
    monkeypatch.setattr(access, "get_auth_manager", lambda: manager)
    monkeypatch.setattr(security, "get_auth_manager", lambda: manager)
    monkeypatch.setattr(f"{security.__name__}.DagModel.get_team_name", lambda dag: None)
    assert access.buttons_of(ben, RANKER) == {button} and access.buttons_of(ben, "search") == frozenset()
    app = application()
    monkeypatch.setattr(
        app, "dependency_overrides", {access.reader: lambda: None, security.get_user: lambda: ben}
    )
    client = TestClient(app)
    for other in DAGS:
        answer = client.post(f"/releases/{RANKER}/{other}", data=FORM)
        assert answer.status_code == 403
        assert ("the form is too old or invalid" in answer.text) is (other == button), answer.text


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: str


class Person:
    """Somebody at the pages, with the session cookie that a browser would have; None: nobody."""

    def __init__(self, here: AirflowHere, user: str | None) -> None:
        self._address = ("127.0.0.1", here.machine.ports.airflow_port)
        self._headers: dict[str, str] = {}
        if user:
            login = {"username": user, "password": here.machine.secrets.passwords[user]}
            said = self.send("POST", "/auth/token", json.dumps(login), {"Content-Type": "application/json"})
            self._headers = {"Cookie": f"_token={json.loads(said.body)['access_token']}"}

    def send(
        self, method: str, path: str, body: str | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        connection = http.client.HTTPConnection(*self._address, timeout=120)
        try:
            connection.request(method, path, body, {**self._headers, **(headers or {})})
            found = connection.getresponse()
            return Answer(found.status, {k.lower(): v for k, v in found.getheaders()}, found.read().decode())
        finally:
            connection.close()

    def get(self, path: str) -> Answer:
        return self.send("GET", PREFIX + path)

    def post(self, path: str, form: dict[str, str], **headers: str) -> Answer:
        there = {"Content-Type": "application/x-www-form-urlencoded", **headers}
        return self.send("POST", PREFIX + path, urllib.parse.urlencode(form), there)

    def token(self, ranker: str = RANKER) -> str:
        """The hidden field of this person's page."""
        found = re.search(r'name="token" value="([^"]+)"', self.get(f"/releases/{ranker}").body)
        return found.group(1) if found else ""


def path_of(template: str) -> str:
    name = "report.html" if "/validation/" in template else FORM["version"]
    return template.format(ranker=RANKER, name=name, source="retail", day="2011-08-30")


def runs(here: AirflowHere, dag: str) -> list[dict[str, Any]]:
    return [run for run in here.runs(dag) if (run["conf"] or {}).get("reason") == REASON]


@contextmanager
def keys_of(here: AirflowHere) -> Iterator[None]:
    """Sign with the keys of this platform."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESHELVE_HOME", here.environment["RESHELVE_HOME"])
        settings.cache_clear()
        make(if_missing=True)
        yield
    settings.cache_clear()


@pytest.fixture
def released(airflow_here: AirflowHere) -> None:
    """A ranker with a release under way, so that its page has forms."""
    pointer = {
        "ranker": RANKER, "sequence": 1, "stable": 20110829001, "previous": 20110828001, "canary": 20110830001,
        "state": "approval", "plan": {"approval": True}, "served": [20110828001, 20110829001],
        "by": "test", "reason": "test", "moved_at": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    with keys_of(airflow_here):
        if not airflow_here.store.exists(f"deployments/{RANKER}/log/00000001.json"):
            put_state(airflow_here.store, Pointer.model_validate(pointer))
    let_the_agent_report(airflow_here)


def let_the_agent_report(here: AirflowHere) -> None:
    """It counts as alive for a minute, and several pages may take longer."""
    serving = Serving(stable=20110829001)
    report = Report(agent="a", server="h:1", at=datetime.now(UTC), sequence=1, serving=serving)
    write_report(here.store, RANKER, report)


@pytest.fixture
def published(airflow_here: AirflowHere, released: None) -> None:
    """The versions that the pointer names, signed with the keys of this platform: what is not there is refused at once."""
    with keys_of(airflow_here):
        for version in (20110828001, 20110829001, 20110830001):
            put_version(airflow_here.store, RANKER, version)


def not_to_run(here: AirflowHere, dags: list[str]) -> None:
    """Forget the runs of paused DAGs and switch those on again: what one test has asked for does not run beside the next."""
    for dag in dags:
        for run in here.runs(dag):
            here.call("DELETE", f"/dags/{dag}/dagRuns/{urllib.parse.quote(run['dag_run_id'], safe='')}")
        here.call("PATCH", f"/dags/{dag}", {"is_paused": False})


@pytest.mark.platform
@pytest.mark.slow
@pytest.mark.usefixtures("released")
class TestOnTheRunningPlatform:
    def test_nobody_gets_401_everywhere(self, airflow_here: AirflowHere) -> None:
        nobody = Person(airflow_here, None)
        for method, path in ENDPOINTS:
            answer = nobody.get(path_of(path)) if method == "GET" else nobody.post(path_of(path), FORM)
            assert answer.status == 401, (method, path)
            assert "Log in" in answer.body and RANKER not in answer.body
        for path in ("/docs", "/redoc", "/openapi.json", "/"):
            assert nobody.get(path).status == 404, path

    def test_nobody_is_shown_the_way_to_the_log_in_that_there_is(self, airflow_here: AirflowHere) -> None:
        nobody = Person(airflow_here, None)
        (link,) = re.findall(r'href="([^"]*/login[^"]*)"', nobody.get("/releases").body)
        answer = nobody.send("GET", link)
        assert answer.status == 307
        log_in, _, wanted = answer.headers["location"].partition("?next=")
        assert urllib.parse.unquote(wanted) == f"{PREFIX}/releases"
        assert nobody.send("GET", urllib.parse.urlsplit(log_in).path).status == 200

    def test_a_viewer_reads_and_gets_403_on_every_write(self, airflow_here: AirflowHere) -> None:
        viewer, analyst = Person(airflow_here, "viewer"), Person(airflow_here, "analyst")
        for (method, path), may in ENDPOINTS.items():
            if method == "GET":
                answer = viewer.get(path_of(path))
                assert (answer.status == 403) == (may == "no"), path
                assert "<form" not in answer.body
            else:
                stolen = {**FORM, "token": analyst.token()}
                assert viewer.post(path_of(path), FORM).status == 403, path
                assert viewer.post(path_of(path), stolen).status == 403, path
        for button in DAGS:
            dag = dag_of(button, RANKER)
            assert runs(airflow_here, dag) == []

    @pytest.mark.usefixtures("published")
    def test_an_analyst_starts_the_dags_in_their_own_name(
        self, airflow_here: AirflowHere, request: pytest.FixtureRequest
    ) -> None:
        analyst = Person(airflow_here, "analyst")
        form = {**FORM, "to": "20110828001", "token": analyst.token()}
        actions = {button: dag_of(button, RANKER) for button in ("approve", "hold", "rollback", "release")}
        for dag in actions.values():  # whose runs would move the pointer, and the page be out of date
            airflow_here.call("PATCH", f"/dags/{dag}", {"is_paused": True})
        request.addfinalizer(lambda: not_to_run(airflow_here, list(actions.values())))
        for action, dag in actions.items():
            let_the_agent_report(airflow_here)
            answer = analyst.post(f"/releases/{RANKER}/{action}", form)
            assert answer.status == 303, (action, answer.body)
            (run,) = runs(airflow_here, dag)
            assert run["triggering_user_name"] == "analyst"
            page = analyst.send("GET", answer.headers["location"])
            assert page.status == 200 and f"{dag} was started" in page.body, answer.headers["location"]
        (rolled,) = runs(airflow_here, f"rollback_{RANKER}")
        assert rolled["conf"]["dry_run"] is False and rolled["conf"]["to"] == 20110828001
        assert rolled["conf"]["if_sequence"] == 1

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param({"token": ""}, id="no token"),
            pytest.param({"token": "made.up.token"}, id="a made-up token"),
            pytest.param({"Origin": "http://evil.example"}, id="from another site"),
            pytest.param({"Sec-Fetch-Site": "cross-site"}, id="by the browser's own word from another site"),
        ],
    )
    def test_a_post_from_another_site_is_refused(
        self, airflow_here: AirflowHere, change: dict[str, str]
    ) -> None:
        analyst = Person(airflow_here, "analyst")
        before = len(airflow_here.runs(f"rollback_{RANKER}"))
        form = {**FORM, "token": change.get("token", analyst.token())}
        headers = {name: value for name, value in change.items() if name != "token"}
        assert analyst.post(f"/releases/{RANKER}/rollback", form, **headers).status == 403
        assert len(airflow_here.runs(f"rollback_{RANKER}")) == before

    def test_a_token_is_one_person_s_and_one_ranker_s(self, airflow_here: AirflowHere) -> None:
        analyst, admin = Person(airflow_here, "analyst"), Person(airflow_here, "admin")
        foreign = {**FORM, "token": admin.token()}
        assert foreign["token"] and analyst.post(f"/releases/{RANKER}/rollback", foreign).status == 403
        own = {**FORM, "token": analyst.token()}
        assert analyst.post("/releases/search/rollback", own).status == 403

    def test_wrong_values_are_refused_in_words(self, airflow_here: AirflowHere) -> None:
        analyst = Person(airflow_here, "analyst")
        form = {**FORM, "token": analyst.token()}
        for wrong in ({"reason": ""}, {"to": "latest"}, {"reason": "x" * 501}):
            answer = analyst.post(f"/releases/{RANKER}/rollback", {**form, **wrong})
            assert answer.status == 422 and "The request is invalid" in answer.body, wrong
        assert analyst.get("/releases/no_such_ranker").status == 404
        assert analyst.get("/releases/..%2f..%2fetc").status in (404, 422)

    def test_a_page_loads_and_runs_nothing(self, airflow_here: AirflowHere) -> None:
        answer = Person(airflow_here, "viewer").get(f"/releases/{RANKER}")
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'") and "unsafe" not in policy
        only = re.search(r"script-src 'nonce-([\w-]{20,})'(;|$)", policy)
        assert only, policy
        scripts = re.findall(r"<script\b[^>]*>", answer.body)
        assert scripts == [f'<script nonce="{only[1]}">']
        assert "frame-ancestors 'self'" in policy and "form-action 'self'" in policy
        assert answer.headers["cache-control"] == "no-store"
