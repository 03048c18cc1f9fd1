"""The pages behind the FAB auth manager, with people of its own and with those of an OpenID provider: as docker-compose.oidc.yaml has it.

Airflow's API server and DAG processor run for real, on packages of locks/fab.lock beside this environment. The provider is a small
one of ours, which speaks the protocol; no company's was tried.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import rsa
from tests.airflow import test_security as security
from tests.airflow.oidc_provider import CLIENT, SECRET, Provider, provider
from tests.airflow.platform_here import AirflowHere, running
from tests.airflow.test_security import FORM, PREFIX, RANKER, Person

from reshelve.settings import PROJECT
from reshelve_airflow.releases.access import dag_of

pytestmark = [pytest.mark.platform, pytest.mark.slow]

LOG_IN = yaml.safe_load((PROJECT / "docker-compose.oidc.yaml").read_text())["services"]
CONFIG = PROJECT / "include" / "compose" / "webserver_config.py"
ROLES = {"admin": "Admin", "op": "Op", "analyst": "User", "viewer": "Viewer", "narrow": "one ranker"}
ONE_RANKER = [
    ("can_read", "Website"),
    ("can_read", f"DAG:release_{RANKER}"),
    ("can_edit", f"DAG:release_{RANKER}"),
    ("can_edit", f"DAG:rollback_{RANKER}"),
    ("can_read", "DAG Runs"),
    ("can_create", "DAG Runs"),
]
ANNA = {"sub": "7", "preferred_username": "anna", "email": "anna@shop.example", "groups": ["ranking"]}

released, published = security.released, security.published


@pytest.fixture(scope="module")
def fab() -> str:
    """The folder with the FAB auth manager."""
    environment = {**os.environ, "RESHELVE_PYTHON": sys.executable}
    done = subprocess.run(
        [PROJECT / "scripts" / "fab.sh"], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode and "Could not find a version" in done.stderr:
        pytest.skip(f"pip finds no files of locks/fab.lock here: {done.stderr[-500:]}")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def people() -> Iterator[Provider]:
    """The company's OpenID provider."""
    with provider() as made:
        yield made


def of_compose(service: str, given: dict[str, str]) -> dict[str, str]:
    """What docker-compose.oidc.yaml gives a service, with these values in .env."""

    def value(found: re.Match[str]) -> str:
        name, default = found.groups()
        return given.get(name) or default or ""

    return {
        name: re.sub(r"\$\{(\w+):[-?]([^}]*)\}", value, text).replace("/opt/reshelve", str(PROJECT))
        for name, text in LOG_IN[service]["environment"].items()
    }


def log_in_of(here: AirflowHere, issuer: str) -> dict[str, str]:
    return of_compose(
        "api-server",
        {
            "AIRFLOW_BASE_URL": here.machine.airflow_url,
            "OIDC_ISSUER": issuer,
            "OIDC_CLIENT_ID": CLIENT,
            "OIDC_CLIENT_SECRET": SECRET,
            "OIDC_ROLES": "ranking=User, support = Viewer",
        },
    )


@pytest.fixture(scope="module")
def airflow_here(
    tmp_path_factory: pytest.TempPathFactory, fab: str, people: Provider
) -> Iterator[AirflowHere]:
    """In place of the platform with the simple log-in: the API server and what tells it of DAGs."""

    def before(here: AirflowHere) -> None:
        # The database was migrated as `init` does it, who knows nothing of the provider.
        here.environment.update(log_in_of(here, people.issuer))
        here.environment["AIRFLOW__FAB__CACHE_TTL"] = "1"  # seconds; by default 30
        passwords = here.machine.secrets.passwords
        passwords.update({name: f"{name}'s password" for name in ("op", "narrow")})
        asked = {
            "roles": {"one ranker": ONE_RANKER},
            "people": {name: {"role": role, "password": passwords[name]} for name, role in ROLES.items()},
        }
        done = subprocess.run(
            [sys.executable, Path(__file__).with_name("fab_people.py")],
            env={**os.environ, **here.environment}, input=json.dumps(asked), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]

    folders = [str(PROJECT / "include"), str(PROJECT / "plugins"), fab]
    more = {**of_compose("init", {}), "PYTHONPATH": os.pathsep.join(folders)}
    home = tmp_path_factory.mktemp("with-fab")
    with contextmanager(running)(home, ("api-server", "dag-processor"), more, before) as here:
        yield here


class TestPeopleOfFab(security.TestOnTheRunningPlatform):
    """The same table of who may do what, and roles that the simple log-in does not have."""

    @pytest.mark.usefixtures("published")
    @pytest.mark.parametrize("user", ["op", "admin"])
    def test_who_may_more_may_act_too(self, airflow_here: AirflowHere, user: str) -> None:
        person = Person(airflow_here, user)
        security.let_the_agent_report(airflow_here)
        answer = person.post(f"/releases/{RANKER}/release", {**FORM, "token": person.token()})
        assert answer.status == 303, answer.body
        (run,) = security.runs(airflow_here, f"release_{RANKER}")
        assert run["triggering_user_name"] == user
        security.not_to_run(airflow_here, [f"release_{RANKER}"])

    @pytest.mark.usefixtures("published")
    def test_who_has_one_ranker_sees_and_moves_that_one(self, airflow_here: AirflowHere) -> None:
        narrow = Person(airflow_here, "narrow")
        overview = narrow.get("/releases")
        assert overview.status == 200 and f"releases/{RANKER}" in overview.body
        assert "releases/search" not in overview.body
        for path in ("/releases/search", f"/report/search/{FORM['version']}"):
            assert narrow.get(path).status == 403, path
        form = {**FORM, "to": "20110828001", "token": narrow.token()}
        assert form["token"]
        security.let_the_agent_report(airflow_here)
        refused = narrow.post(f"/releases/{RANKER}/hold", form)
        assert refused.status == 403, "a DAG that the role does not name"
        assert security.runs(airflow_here, dag_of("hold", RANKER)) == []
        assert narrow.post(f"/releases/{RANKER}/release", form).status == 303
        security.not_to_run(airflow_here, [f"release_{RANKER}"])


class Browser:
    """Somebody at a browser, without a session yet."""

    def __init__(self, here: AirflowHere) -> None:
        self._client = httpx.Client(base_url=here.machine.airflow_url, timeout=120, follow_redirects=True)
        self.get, self.post, self.cookies = self._client.get, self._client.post, self._client.cookies

    def log_in(self) -> httpx.Response:
        """By the link of our page, and the provider's name on Airflow's."""
        refused = self.get(f"{PREFIX}/releases")
        (link,) = re.findall(r'href="([^"]*auth/login[^"]*)"', refused.text)
        offered = self.get(link.replace("&amp;", "&"))
        assert refused.status_code == 401 and offered.status_code == 200 and "oidc" in offered.text
        return self.get("/auth/login/oidc", params=offered.url.params)


class TestPeopleOfTheProvider:
    def test_they_act_in_their_own_name(
        self, airflow_here: AirflowHere, people: Provider, published: None
    ) -> None:
        people.logs_in(ANNA)
        anna = Browser(airflow_here)
        page = anna.log_in()
        assert page.status_code == 200 and page.url.path == f"{PREFIX}/releases"
        session = jwt.decode(anna.cookies["_token"], options={"verify_signature": False})
        assert session["exp"] - time.time() <= 480 * 60, "a working day, as compose says"
        page = anna.get(f"{PREFIX}/releases/{RANKER}")
        (token,) = set(re.findall(r'name="token" value="([^"]+)"', page.text))
        security.let_the_agent_report(airflow_here)
        form = {**FORM, "token": token}
        done = anna.post(f"{PREFIX}/releases/{RANKER}/release", data=form)
        assert done.status_code == 200 and f"release_{RANKER} was started" in done.text
        (run,) = security.runs(airflow_here, f"release_{RANKER}")
        assert run["triggering_user_name"] == "anna"
        security.not_to_run(airflow_here, [f"release_{RANKER}"])

    def test_their_groups_are_asked_anew_at_each_log_in(
        self, airflow_here: AirflowHere, people: Provider, released: None
    ) -> None:
        ben = {**ANNA, "sub": "8", "preferred_username": "ben", "email": "ben@shop.example"}

        def finds(groups: Any, status: int, acts: bool) -> None:
            people.logs_in({**ben, "groups": groups})
            browser = Browser(airflow_here)
            browser.log_in()
            found, deadline = None, time.monotonic() + 20
            while (
                found != (status, acts) and time.monotonic() < deadline
            ):  # FAB remembers rights for a moment
                page = browser.get(f"{PREFIX}/releases/{RANKER}")
                found = page.status_code, "<form" in page.text
            assert found == (status, acts), groups

        finds(["ranking", "unknown"], 200, True)
        finds("support", 200, False)
        finds([], 403, False)

    def test_what_the_id_token_leaves_out_the_userinfo_says(
        self, airflow_here: AirflowHere, people: Provider
    ) -> None:
        people.logs_in({"sub": "9"}, {"preferred_username": "carl", "groups": ["support"]})
        assert Browser(airflow_here).log_in().status_code == 200

    @pytest.mark.parametrize(
        "forged",
        [
            pytest.param({"nonce": "another log-in's"}, id="of another log-in"),
            pytest.param({"aud": "another program"}, id="for another program"),
            pytest.param({"aud": ["another program"], "azp": CLIENT}, id="got by us for another program"),
            pytest.param({"iss": "https://evil.example"}, id="of another provider"),
            pytest.param({"exp": 1}, id="expired"),
            pytest.param({"preferred_username": ""}, id="nameless"),
        ],
    )
    def test_a_wrong_id_token_logs_nobody_in(
        self, airflow_here: AirflowHere, people: Provider, forged: dict[str, Any]
    ) -> None:
        people.logs_in(ANNA)
        people.forged = forged
        self.nobody_is_logged_in(airflow_here)

    def test_an_id_token_of_another_key_logs_nobody_in(
        self, airflow_here: AirflowHere, people: Provider
    ) -> None:
        people.logs_in(ANNA)
        people.signs_with = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.nobody_is_logged_in(airflow_here)

    def test_userinfo_about_somebody_else_logs_nobody_in(
        self, airflow_here: AirflowHere, people: Provider
    ) -> None:
        people.logs_in({"sub": "10"}, {**ANNA, "sub": "7"})
        self.nobody_is_logged_in(airflow_here)

    def test_they_have_no_password_that_would_do_without_the_provider(
        self, airflow_here: AirflowHere, people: Provider
    ) -> None:
        people.logs_in(ANNA)
        Browser(airflow_here).log_in()
        for password in ("", "anna", "None"):
            log_in = {"username": "anna", "password": password}
            assert Browser(airflow_here).post("/auth/token", json=log_in).status_code in (400, 401), password

    @staticmethod
    def nobody_is_logged_in(here: AirflowHere) -> None:
        browser = Browser(here)
        browser.log_in()
        assert browser.get(f"{PREFIX}/releases").status_code == 401


WRONG = {
    "OIDC_ISSUER is not set": {"OIDC_ISSUER": ""},
    "https:// is needed": {"OIDC_ISSUER": "http://login.shop.example"},
    "OIDC_CLIENT_SECRET is not set": {"OIDC_CLIENT_SECRET": ""},
    "'ranking' is no group=role": {"OIDC_ROLES": "ranking"},
    "names no group": {"OIDC_ROLES": " , "},
}
READ = """
import json, os, runpy, sys
for case in json.load(sys.stdin):
    os.environ.update(case)
    try:
        print(runpy.run_path(sys.argv[1])["AUTH_ROLES_MAPPING"])
    except ValueError as error:
        print(error)
"""


def test_a_wrong_setting_is_named_before_anybody_logs_in(fab: str) -> None:
    right = {
        "OIDC_ISSUER": "https://login.shop.example/", "OIDC_CLIENT_ID": CLIENT, "OIDC_CLIENT_SECRET": SECRET,
        "OIDC_ROLES": "cn=ranking=User,leads=Op",
    }  # fmt: skip
    cases = [right, *({**right, **wrong} for wrong in WRONG.values())]
    done = subprocess.run(
        [sys.executable, "-c", READ, CONFIG], env={**os.environ, "PYTHONPATH": fab}, input=json.dumps(cases),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    said = [line for line in done.stdout.splitlines() if "OIDC" in line or "User" in line]
    assert said[0] == str({"cn=ranking": ["User"], "leads": ["Op"]})
    for words, line in zip(WRONG, said[1:], strict=True):
        assert words in line


def test_what_compose_sets_are_options_of_the_provider(fab: str) -> None:
    text = (Path(fab) / "airflow" / "providers" / "fab" / "get_provider_info.py").read_text()
    options = {name for name in LOG_IN["api-server"]["environment"] if name.startswith("AIRFLOW__FAB__")}
    assert options
    for name in options:
        assert f'"{name.removeprefix("AIRFLOW__FAB__").lower()}": {{' in text, name
