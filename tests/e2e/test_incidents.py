"""Incidents planted on the running platform: the DAG `monitor` does what its table names, within two cycles.

The tests of this file tell one story and run in order on one platform. Its runs are triggered here; those of its own
schedule may come between. Before a release reaches customers a person is asked, who rejects one and forgets another.
"""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.e2e.shop import Shop, eventually
from tests.planted import Customers, build_graphs, publish_graph, remember

from reshelve.clickstream.events import landed_prefix
from reshelve.config.ranker import Ranker
from reshelve.deployments.deployment_log import Pointer, read_log, read_pointer
from reshelve.deployments.freeze import read_hold
from reshelve.errors import TryAgainError
from reshelve.monitoring.observations import Action, Condition, WatchDecision, recent
from reshelve.pipeline.references import load_ranker
from reshelve.platform.airflow_client import DagRun
from reshelve.rollout.release import approve, release
from reshelve.rollout.roll_back import rollback
from reshelve.settings import settings
from reshelve.store.objects import object_store

pytestmark = [pytest.mark.platform, pytest.mark.slow, pytest.mark.timeout(900)]

CYCLES = 2
TASK_SECONDS = 240  # of what Airflow's tasks do, one after the other, on a machine that is busy
GOOD_DAY, BROKEN_DAY = date(2011, 8, 30), date(2011, 8, 31)
RULES: dict[str, dict[str, Any]] = {
    "release": {"ready_seconds": 120, "approval": True, "approval_hours": 0.02},
    "watch": {
        "min_requests": 60,
        "drift_requests": 150,
        "agent_minutes": 0.3,
        "silent_requests": 20,
        "guard": {"cooldown_minutes": 0, "actions_a_day": 3},
    },
}


class Incidents:
    """The platform with its customers, and what its watch decides."""

    def __init__(self, shop: Shop, customers: Customers, graphs: dict[str, Path], work: Path) -> None:
        self.shop, self.customers, self.graphs, self.work = shop, customers, graphs, work
        self.ranker: Ranker = load_ranker("recommend")
        self.store = object_store()
        self.airflow = shop.client()

    @property
    def pointer(self) -> Pointer:
        found = read_pointer(self.store, "recommend")
        assert found is not None
        return found

    def put(self, kind: str, day: date) -> int:
        """Publish a version of a day and release it; the person who is asked agrees."""
        version = publish_graph(self.graphs[kind], self.ranker, day, self.work / f"{day}")
        assert release(self.ranker, version, by="anna")["awaits_approval"]
        assert approve(self.ranker, version, by="anna")["state"] == "promoted"
        if kind == "good":
            remember(version)
        return version

    def start(self, dag: str, **conf: Any) -> DagRun:
        """A run of a DAG."""
        body = {"logical_date": None, "conf": conf}
        asked = self.airflow._call("POST", f"/dags/{dag}/dagRuns", body)
        return DagRun(dag, asked["dag_run_id"], asked["state"], None, conf)

    def task(self, run: DagRun, name: str) -> str:
        """The state of a task, "none" before it has one or while Airflow is too busy to say."""
        try:
            return next((task.state for task in self.airflow.tasks(run) if task.id == name), "none")
        except TryAgainError:
            return "none"

    def cycle(self) -> None:
        """One run of `monitor`, up to its look."""
        run = self.start("monitor")
        ended = ("success", "failed")
        eventually("a look", lambda: self.task(run, "watch_recommend") in ended, TASK_SECONDS, every=0.5)
        assert self.task(run, "watch_recommend") == "success", run

    def decided(self, condition: Condition, requests: int) -> WatchDecision:
        """What was decided on a condition from now on, within two cycles of so many requests each."""
        planted = datetime.now(UTC)
        for _ in range(CYCLES):
            if requests:
                self.customers.serve(requests)
            self.cycle()
            made = [look.decision for look in recent(self.store, "recommend", 10) if look.at > planted]
            found = [one for one in made if one is not None and one.condition is condition]
            if found:
                return found[0]
        raise AssertionError(f"{condition} was not found: {made}")

    def wait_for_question(self, run: DagRun) -> str:
        """The API's path of the question that a release asks, once it does."""
        waiting = "awaiting_input"
        eventually("a question", lambda: self.task(run, "approval") == waiting, TASK_SECONDS, every=0.5)
        return f"/dags/{run.dag}/dagRuns/{run.id}/taskInstances/approval/-1/hitlDetails"

    def answer(self, run: DagRun, option: str, reason: str) -> None:
        """Answer as a person does: not at once, and again where asked again.

        Airflow 3.3.2 fails a task whose answer comes before its executor has told of the end of asking, and its retry asks anew.
        """
        question = self.wait_for_question(run)
        said = {"chosen_options": [option], "params_input": {"why": reason}}
        ended = ("success", "awaiting_input")
        for _ in range(3):
            time.sleep(2)
            self.airflow._call("PATCH", question, said)
            eventually("it is taken", lambda: self.task(run, "approval") in ended, TASK_SECONDS, every=0.5)
            if self.task(run, "approval") == "success":
                return
        raise AssertionError(f"{run} asks again and again")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Incidents]:
    home = tmp_path_factory.mktemp("incidents")
    shop = Shop(home / "home", home / "rankers")
    file = home / "rankers" / "recommend.yaml"
    document = yaml.safe_load(file.read_text())
    for section, values in RULES.items():
        document.setdefault(section, {}).update(values)
    file.write_text(yaml.safe_dump(document))
    with ExitStack() as ending, pytest.MonkeyPatch.context() as patch:
        ending.callback(shop.command, "platform", "down", timeout=120)
        pool = ending.enter_context(ThreadPoolExecutor(1))
        graphs = pool.submit(build_graphs, home)
        done = shop.command("platform", "up")
        assert done.returncode == 0, done.stderr[-3000:]
        shop.leave_the_dead()
        judged = pool.submit(judge, shop, GOOD_DAY)
        _use(patch, shop)
        ending.callback(_forget)
        customers = Customers(f"127.0.0.1:{shop.ports.grpc_port}")
        ending.callback(customers.close)
        made = Incidents(shop, customers, graphs.result(), home)
        for dag in ("release_recommend", "retrain_recommend", "monitor"):
            made.airflow.wait_for_dag(dag)
        judged.result()
        made.airflow.unpause("monitor")  # the nights stay paused: what is tested is that one is asked for
        yield made


def _use(patch: pytest.MonkeyPatch, shop: Shop) -> None:
    """Let this process use the shop's store, keys and ranker file."""
    for name, value in {**shop.environment, **shop.machine.environment()}.items():
        if name.startswith(("AWS_", "RESHELVE_")):
            patch.setenv(name, value)
    _forget()


def _forget() -> None:
    settings.cache_clear()
    object_store.cache_clear()


def judge(shop: Shop, day: date) -> None:
    """Land a day anew and validate it."""
    for command in (
        ("land", "--source", "retail", "--from", str(day), "--to", str(day)),
        ("validate", "--source", "retail", "--partition", str(day)),
    ):
        done = shop.command(*command)
        assert done.returncode == 0, done.stderr[-3000:]


def test_bad_versions_are_rolled_back(here: Incidents) -> None:
    one = here.put("good", date(2011, 8, 25))
    here.cycle()  # the first look counts nothing
    here.customers.serve(160)
    here.cycle()

    failing = here.put("failing", date(2011, 8, 26))
    decision = here.decided(Condition.BAD_VERSION, requests=60)
    assert (decision.action, decision.version) == (Action.ROLL_BACK, failing), decision
    assert "requests fail" in decision.reason and here.pointer.stable == one

    slow = here.put("slow", date(2011, 8, 27))
    decision = here.decided(Condition.BAD_VERSION, requests=60)
    assert (decision.action, decision.version) == (Action.ROLL_BACK, slow), decision
    assert "p95" in decision.reason and here.pointer.stable == one
    moves = [entry for entry in read_log(here.store, "recommend") if entry.action == "rollback"]
    assert [entry.pointer.by for entry in moves] == ["watch", "watch"]


def test_shifted_inputs_start_a_night(here: Incidents) -> None:
    here.customers.words = "an entirely other thing, and rather a long one,"
    decision = here.decided(Condition.DRIFT, requests=200)
    assert decision.action is Action.RETRAIN, decision
    (night,) = eventually("a night", lambda: here.airflow.runs("retrain_recommend"), TASK_SECONDS)
    assert (night.id, night.conf["partition"]) == (f"watch__{GOOD_DAY}", str(GOOD_DAY))


def test_a_broken_partition_holds_releases_and_what_waited_is_released_after_it(here: Incidents) -> None:
    key = f"{landed_prefix('retail', BROKEN_DAY)}part.parquet"
    here.store.put(key, b"half a file")
    validate = ("validate", "--source", "retail", "--partition", str(BROKEN_DAY))
    assert here.shop.command(*validate).returncode == 65
    decision = here.decided(Condition.BROKEN_DATA, requests=60)
    hold = read_hold(here.store, "recommend")
    assert decision.action is Action.HOLD and hold is not None and hold.by == "watch", decision
    two = publish_graph(here.graphs["good"], here.ranker, date(2011, 8, 28), here.work / "two")
    with pytest.raises(TryAgainError, match="releases are frozen"):
        release(here.ranker, two, by="anna")

    here.store.delete([key])
    judge(here.shop, BROKEN_DAY)
    for _ in range(CYCLES):
        here.customers.serve(60)
        here.cycle()
    assert read_hold(here.store, "recommend") is None, "two looks without the cause lift the hold"
    (run,) = eventually(
        "the release that waited", lambda: here.airflow.runs("release_recommend"), TASK_SECONDS
    )
    assert run.conf["version"] == two

    here.answer(run, "Reject", "its titles are odd")
    eventually("it is taken back", lambda: here.pointer.canary is None, TASK_SECONDS)
    last = read_log(here.store, "recommend")[-1]
    assert (last.action, last.pointer.by, last.pointer.reason) == ("withdraw", "admin", "its titles are odd")
    assert two not in (here.pointer.stable, here.pointer.previous)


def test_the_guard_holds_under_a_flapping_signal(here: Incidents) -> None:
    """Three automatic actions a day were allowed, and three were taken."""
    before = here.pointer.stable
    failing = here.put("failing", date(2011, 8, 29))
    for flap in range(2):
        here.customers.who = "customer"
        decision = here.decided(Condition.BAD_VERSION, requests=60)
        assert decision.action is Action.ALERT, (flap, decision)
        assert "roll back is left to a person: 3 automatic actions in 24 hours" in decision.refused
        here.customers.who = "shoppers"
        here.customers.serve(60)
        here.cycle()
        (well,) = recent(here.store, "recommend", 1)
        assert Condition.BAD_VERSION not in {finding.condition for finding in well.findings}, flap
    assert here.pointer.stable == failing and here.pointer.by == "anna"
    assert rollback(here.ranker.name, to=before, by="anna")["state"] == "rolled_back"


def test_no_traffic_holds_releases(here: Incidents) -> None:
    decision = here.decided(Condition.NO_TRAFFIC, requests=0)
    hold = read_hold(here.store, "recommend")
    assert decision.action is Action.HOLD and hold is not None and "not one request" in hold.reason, decision


def test_a_release_that_nobody_answers_is_taken_back_while_a_dead_agent_is_told_of(here: Incidents) -> None:
    here.customers.serve(60)
    here.shop.json("lift", "--ranker", "recommend", "--by", "anna")
    stable = here.pointer.stable
    run = here.start("release_recommend", version=20110828001)
    here.wait_for_question(run)
    assert here.pointer.canary == 20110828001

    here.shop.kill("agent")
    eventually("the agent is silent", lambda: _silence(here) > 20, 60)
    decision = here.decided(Condition.DEAD_AGENT, requests=60)
    assert decision.action is Action.ALERT and decision.alert, decision
    assert "agent local has been silent" in decision.reason

    eventually("nobody answered", lambda: here.pointer.canary is None, TASK_SECONDS)
    last = read_log(here.store, "recommend")[-1]
    assert (last.action, last.pointer.by) == ("withdraw", "nobody")
    waited = RULES["release"]["approval_hours"]
    assert last.pointer.reason == f"no answer within {waited} hours" and here.pointer.stable == stable


def _silence(here: Incidents) -> float:
    from reshelve.protocol.reports import read_reports

    (report,) = read_reports(here.store, "recommend")
    return report.age()


def test_people_were_told_of_each_incident(here: Incidents) -> None:
    def runs() -> list[DagRun]:
        return here.airflow.runs("monitor", limit=50)

    eventually("every look has ended", lambda: all(run.ended for run in runs()), TASK_SECONDS, every=1)
    tasks = [task for run in runs() for task in here.airflow.tasks(run)]
    assert not [task for task in tasks if task.state == "failed"]
    told = [
        here.airflow.log(task) for task in tasks if (task.id, task.state) == ("alert_recommend", "success")
    ]
    made = [look.decision for look in recent(here.store, "recommend", 100)]
    alerts = [one for one in made if one is not None and one.alert]
    assert len(told) == len(alerts)
    for decision in alerts:
        headline = f"recommend: {decision.condition.value} → {decision.action.value}"
        assert any(headline in text and decision.reason in text for text in told), headline


def test_without_the_object_store_the_releases_page_says_so(here: Incidents) -> None:
    here.airflow._call("GET", "/dags/monitor")  # logged in
    request = urllib.request.Request(
        f"{here.airflow.url}/reshelve/releases/recommend",
        headers={"Cookie": f"_token={here.airflow._token}"},
    )
    with urllib.request.urlopen(request, timeout=60) as page:
        assert page.status == 200 and "Deployment log" in page.read().decode()
    here.shop.kill("object-store")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=60)
    said = refused.value.read().decode()
    assert refused.value.code == 503 and "The object store does not answer" in said
    assert "Traceback" not in said and said.count("<script") == 1, "ours, for Airflow's dark switch"
