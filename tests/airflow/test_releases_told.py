"""What the Releases page tells before somebody acts: outages, refusals, what was left and why, nights, example shelves."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import HTTPException
from fastapi.testclient import TestClient
from tests.airflow.test_releases_page import ONE, THREE, TWO, Outline, gate_of, html, publish, words
from tests.e2e.browser import PHONE, chromium

from reshelve.console.release_reader import ReleaseReader
from reshelve.deployments import freeze
from reshelve.deployments.deployment_log import Advance, Offer, Revert, Withdraw, move_pointer, read_pointer
from reshelve.deployments.release_table import Event, Plan, ReleaseState
from reshelve.errors import ReshelveError
from reshelve.evaluation.shelves import Shelf
from reshelve.monitoring.watch import look
from reshelve.pipeline.references import load_ranker
from reshelve.protocol.reports import Report, Serving, write_report
from reshelve.rollout.release import require_releasable
from reshelve.rollout.roll_back import require_way_back, rollback
from reshelve.store.objects import ObjectStore
from reshelve.validation.report import render as validation_page
from reshelve_airflow.releases.pages import STYLE, THEME, render

pytestmark = pytest.mark.slow

AWAY = "the model server 127.0.0.1:8500 does not answer"


def says(store: ObjectStore, agent: str, stable: int | None, error: str | None = None) -> None:
    pointer = read_pointer(store, "recommend")
    sequence = pointer.sequence if pointer else 0
    serving = Serving(stable=stable, available=() if stable is None else (stable,))
    write_report(store, "recommend", Report(agent=agent, server="h:1", at=datetime.now(UTC), sequence=sequence,
                                            serving=serving, error=error))  # fmt: skip


@pytest.fixture
def shop(store: ObjectStore, make_stable: Any) -> ObjectStore:
    """One and then two are stable, and an agent serves two."""
    for version in (ONE, TWO):
        publish(store, version)
        make_stable(store, "recommend", version)
    says(store, "a", TWO)
    return store


def pages(store: ObjectStore) -> list[str]:
    return [html(template, ReleaseReader(store)) for template in ("overview.html", "ranker.html")]


def test_an_outage_looks_like_one(shop: ObjectStore) -> None:
    for page in pages(shop):
        assert 'class="badge good">no release under way' in page and 'role="alert"' not in page
    says(shop, "a", None, AWAY)
    for page in pages(shop):
        assert 'class="badge bad">outage' in page and 'class="badge good">no release under way' not in page
        said = words(page)
        assert "Outage: no model server is known to answer for recommend" in said and AWAY in said
        assert "restart the server" in said and "reshelve platform up" in said
    says(shop, "b", TWO)
    for page in pages(shop):
        assert 'class="badge warn">not well' in page and "outage" not in page
        assert "1 of 2 agents of recommend are not well" in words(page)
        assert 'class="badge good">no release under way' not in page


def test_without_a_sign_of_any_agent_it_is_an_outage_too(
    shop: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reshelve.console.health.LIVE_SECONDS", 0.0)
    for page in pages(shop):
        assert 'class="badge bad">outage' in page and "Restart the silent agent" in words(page)
    shop.delete(["deployments/recommend/agents/a.json"])
    for page in pages(shop):
        assert "No agent has reported on recommend" in words(page)


def test_what_was_never_released_is_no_outage(store: ObjectStore) -> None:
    assert "outage" not in html("overview.html", ReleaseReader(store))


def test_not_watched_yet_says_how(shop: ObjectStore) -> None:
    said = words(html("ranker.html", ReleaseReader(shop), watch_paused=True))
    assert "recommend is not watched yet" in said and "is paused: unpause it there" in said
    assert "reshelve monitor --ranker recommend" in said
    assert "is switched off" not in words(html("ranker.html", ReleaseReader(shop), watch_paused=False))
    assert 'href="/dags/monitor"' in html("ranker.html", ReleaseReader(shop))


def test_the_watch_begins_with_the_first_release(store: ObjectStore, make_stable: Any) -> None:
    ranker = load_ranker("recommend")
    before = look(ranker)
    assert before["released"] is False and "there is nothing to monitor" in before["headline"]
    assert list(store.list("monitoring/")) == []
    publish(store, ONE)
    make_stable(store, "recommend", ONE)
    assert "released" not in look(ranker) and list(store.list("monitoring/"))


def test_a_rollback_just_after_a_rollback_warns(shop: ObjectStore, make_stable: Any) -> None:
    assert ReleaseReader(shop).left(read_pointer(shop, "recommend")) == {}  # type: ignore[arg-type]
    move_pointer(shop, "recommend", Revert(ONE), by="anna", reason="customers <b>complain</b>")
    page = html("ranker.html", ReleaseReader(shop))
    warning = f"version {TWO} is the version you left because: customers"
    assert f"This offers {warning}" in words(page) and "<b>complain" not in page
    assert f"{TWO} (previous) – left by a rollback" in words(page)
    shop.put(f"models/recommend/{TWO}/saved_model.pb", b"x")
    planned = rollback("recommend", to=None, by="ben", dry_run=True)
    assert (
        planned["version"] == TWO
        and warning in planned["warning"]
        and "rolled back by anna" in planned["warning"]
    )
    make_stable(shop, "recommend", TWO)
    publish(shop, THREE)
    make_stable(shop, "recommend", THREE)
    assert "you left because" not in html("ranker.html", ReleaseReader(shop)), (
        "it was promoted again, and gave way to a newer one"
    )


def releasable(store: ObjectStore, version: int, **how: bool) -> str:
    """The reason of the refusal; empty where there is none."""
    pointer = read_pointer(store, "recommend")
    assert pointer is not None
    try:
        require_releasable(store, pointer, version, **how)
    except ReshelveError as error:
        return f"{error.headline}: {error.detail}"
    return ""


@pytest.fixture
def uploaded(shop: ObjectStore) -> ObjectStore:
    """The versions' files are there too."""
    for version in (ONE, TWO, THREE):
        shop.put(f"models/recommend/{version}/saved_model.pb", b"x")
    publish(shop, THREE, verdict="hold", reasons=["a slice is worse"])
    return shop


def test_a_release_is_refused_with_its_reason_before_it_begins(
    uploaded: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "the gate said hold: a slice is worse" in releasable(uploaded, THREE)
    assert releasable(uploaded, THREE, allow_held=True) == ""
    assert f"older partition than {TWO}" in releasable(uploaded, ONE)
    assert "20110901001" in releasable(uploaded, 20110901001)
    move_pointer(uploaded, "recommend", Offer(THREE, Plan(allow_held=True)), by="anna", reason="")
    assert f"version {THREE} is being released" in releasable(uploaded, ONE, allow_older=True)
    assert releasable(uploaded, THREE, allow_held=True) == "", "the same release goes on"
    freeze.hold(uploaded, "recommend", by="watch", reason="broken data", cause="retail")
    assert "releases are frozen: broken data" in releasable(uploaded, THREE, allow_held=True)
    freeze.lift(uploaded, "recommend")
    monkeypatch.setattr("reshelve.protocol.reports.LIVE_SECONDS", 0.0)
    assert "no serving agent has reported" in releasable(uploaded, THREE, allow_held=True)


@pytest.fixture
def client(uploaded: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The pages behind a log-in that lets everybody in; what they would have started is in `started`."""
    from reshelve_airflow.releases import access, airflow_api, app, bound

    started: list[tuple[Any, ...]] = []

    async def start(request: Any, *what: Any, **more: Any) -> None:
        started.append(what)

    def pointer() -> Any:
        return read_pointer(uploaded, "recommend")

    monkeypatch.setattr(airflow_api, "start_dag", start)
    monkeypatch.setattr(app, "board", lambda: ReleaseReader(uploaded))
    shown = access.Shown(SimpleNamespace(get_id=lambda: "1", get_name=lambda: "anna"), 0, "page")  # type: ignore[arg-type]
    overrides = {access.reader: lambda: None, access.editor: lambda: shown, bound.bound: pointer}
    monkeypatch.setattr(app.app, "dependency_overrides", overrides)
    with TestClient(app.app, follow_redirects=False) as made:
        yield SimpleNamespace(post=made.post, started=started)


def test_what_would_be_refused_starts_no_run(client: SimpleNamespace, uploaded: ObjectStore) -> None:
    asked = {"version": THREE, "reason": "better titles"}
    refused = client.post("/releases/recommend/release", data=asked)
    assert refused.status_code == 409 and client.started == []
    assert "This cannot be done" in refused.text and "the gate said hold: a slice is worse" in refused.text
    assert 'href="/releases/recommend"' in refused.text and "Nothing was started" in refused.text
    there = client.post("/releases/recommend/rollback", data={"to": THREE, "reason": "go there"})
    assert there.status_code == 409 and "was never stable" in there.text and client.started == []
    long = client.post("/releases/recommend/rollback", data={"to": ONE, "reason": "x" * 501})
    assert long.status_code == 422 and "at most 500 characters" in long.text and client.started == []
    assert client.post("/releases/recommend/rollback", data={"to": ONE, "reason": "slow"}).status_code == 303
    assert client.post("/releases/recommend/release", data={**asked, "allow_held": True}).status_code == 303
    assert [dag for dag, *_ in client.started] == ["rollback_recommend", "release_recommend"]


@pytest.mark.parametrize("reason", ["held", "another release", "no agent"])
def test_what_has_to_wait_is_started_all_the_same(
    client: SimpleNamespace, uploaded: ObjectStore, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    """Its run waits: a held release is remembered by it, and begun when the hold ends."""
    if reason == "held":
        freeze.hold(uploaded, "recommend", by="watch", reason="broken data", cause="retail")
    elif reason == "another release":
        move_pointer(uploaded, "recommend", Offer(THREE, Plan(allow_held=True)), by="anna", reason="")
    else:
        monkeypatch.setattr("reshelve.protocol.reports.LIVE_SECONDS", 0.0)
    older = {"version": ONE, "reason": "it was better", "allow_older": True}
    assert releasable(uploaded, ONE, allow_older=True)
    assert client.post("/releases/recommend/release", data=older).status_code == 303
    assert [dag for dag, *_ in client.started] == ["release_recommend"]
    refused = client.post("/releases/recommend/release", data={**older, "allow_older": False})
    assert refused.status_code == 409 and "older partition" in refused.text, "no waiting makes it newer"
    assert len(client.started) == 1


def test_an_approval_does_not_wait_for_the_end_of_a_hold(
    client: SimpleNamespace, uploaded: ObjectStore
) -> None:
    move_pointer(
        uploaded, "recommend", Offer(THREE, Plan(approval=True, allow_held=True)), by="anna", reason=""
    )
    for event, state in ((Event.LOADED, ReleaseState.LOADING), (Event.PROBED, ReleaseState.PROBING)):
        move_pointer(uploaded, "recommend", Advance(THREE, event, state), by="anna", reason="")
    freeze.hold(uploaded, "recommend", by="watch", reason="broken data", cause="retail")
    refused = client.post("/releases/recommend/approve", data={"version": THREE, "reason": "good"})
    assert refused.status_code == 409 and "releases are frozen: broken data" in refused.text
    assert client.started == []


def waiting(store: ObjectStore, requested_by: str) -> Any:
    """The release of three waits for another person than who requested it; the newest move."""
    plan = Plan(approval=True, another_person=True, requested_by=requested_by, allow_held=True)
    move_pointer(store, "recommend", Offer(THREE, plan), by="night", reason="")
    for event, state in ((Event.LOADED, ReleaseState.LOADING), (Event.PROBED, ReleaseState.PROBING)):
        asks = move_pointer(store, "recommend", Advance(THREE, event, state), by="night", reason="")
    return asks


def test_who_requested_approves_nothing_on_the_page_and_may_withdraw(
    client: SimpleNamespace, uploaded: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reshelve_airflow.releases import airflow_api

    async def airflow(request: Any, method: str, path: str, **body: Any) -> Any:
        return {"hitl_details": [], "dag_runs": []}

    monkeypatch.setattr(airflow_api, "_call", airflow)
    waiting(uploaded, "Anna")  # the client is logged in as anna
    asked = {"version": THREE, "reason": "good"}
    refused = client.post("/releases/recommend/approve", data=asked)
    assert refused.status_code == 409 and client.started == []
    assert "anna requested the release" in refused.text and "Nothing was started" in refused.text
    assert client.post("/releases/recommend/hold", data=asked).status_code == 303
    move_pointer(uploaded, "recommend", Withdraw(THREE), by="ben", reason="")
    waiting(uploaded, "ben")
    assert client.post("/releases/recommend/approve", data=asked).status_code == 303
    assert [dag for dag, *_ in client.started] == ["withdraw_recommend", "approve_recommend"]


def test_who_may_start_the_approval_and_not_answer_the_run_starts_it(
    client: SimpleNamespace, uploaded: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reshelve_airflow.releases import airflow_api

    asks = waiting(uploaded, "ben")

    async def airflow(request: Any, method: str, path: str, **body: Any) -> Any:
        if method == "PATCH":
            raise HTTPException(403, "Airflow refused: Forbidden")
        if "hitlDetails" in path:
            task = {"dag_run_id": "manual", "task_id": "approval", "map_index": -1}
            return {"hitl_details": [{"created_at": "2011-08-31T03:00:00Z", "task_instance": task}]}
        if path.endswith("xcomEntries/return_value"):
            return {"value": {"sequence": asks.sequence}}
        return {"dag_runs": [], "conf": {"version": THREE}}

    monkeypatch.setattr(airflow_api, "_call", airflow)
    answer = client.post("/releases/recommend/approve", data={"version": THREE, "reason": "good"})
    assert answer.status_code == 303 and [dag for dag, *_ in client.started] == ["approve_recommend"]


@pytest.mark.parametrize("calls", range(5))
def test_a_question_that_comes_while_it_is_looked_for_is_answered(
    client: SimpleNamespace, uploaded: ObjectStore, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    """Whichever of the page's requests to Airflow it comes before, no second run is started beside the one that asks."""
    from reshelve_airflow.releases import airflow_api, app

    move_pointer(
        uploaded, "recommend", Offer(THREE, Plan(approval=True, allow_held=True)), by="anna", reason=""
    )
    for event, state in ((Event.LOADED, ReleaseState.LOADING), (Event.PROBED, ReleaseState.PROBING)):
        asks = move_pointer(uploaded, "recommend", Advance(THREE, event, state), by="anna", reason="")
    run = {"dag_run_id": "manual", "conf": {"version": THREE}}
    asked, answered = [], []

    async def airflow(request: Any, method: str, path: str, **body: Any) -> Any:
        asked.append(path)
        if method == "PATCH":
            answered.append(path)
            return {}
        if "hitlDetails" in path:
            stands = datetime.now(UTC) - timedelta(seconds=60 if len(asked) > calls else 0)
            task = {"dag_run_id": "manual", "task_id": "approval", "map_index": -1}
            return {"hitl_details": [{"created_at": stands.isoformat(), "task_instance": task}]}
        if path.endswith("xcomEntries/return_value"):
            return {"value": {"sequence": asks.sequence}}
        return {"dag_runs": [run]} if "?" in path else run

    monkeypatch.setattr(airflow_api, "_call", airflow)
    monkeypatch.setattr(app, "require_unmoved", lambda *_: None)
    answer = client.post("/releases/recommend/approve", data={"version": THREE, "reason": "good"})
    assert answer.status_code == 303 and "run=manual" in answer.headers["location"]
    assert len(answered) == 1 and client.started == []


def test_the_event_loop_imports_nothing_heavy(
    client: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it imports, no page of Airflow answers."""
    where: list[str] = []
    true = builtins.__import__

    def watched(name: str, *more: Any, **how: Any) -> Any:
        if name == "reshelve.rollout.release":
            try:
                asyncio.get_running_loop()
                where.append("loop")
            except RuntimeError:
                where.append("thread")
        return true(name, *more, **how)

    monkeypatch.setattr(builtins, "__import__", watched)
    client.post("/releases/recommend/release", data={"version": THREE, "reason": "good", "allow_held": True})
    assert where == ["thread"] and client.started


def test_a_way_back_that_is_no_way_is_refused(uploaded: ObjectStore) -> None:
    pointer = read_pointer(uploaded, "recommend")
    assert pointer is not None
    require_way_back(uploaded, pointer, ONE)
    for version, said in ((TWO, "is stable already"), (THREE, "was never stable")):
        with pytest.raises(ReshelveError, match=said):
            require_way_back(uploaded, pointer, version)


def test_a_report_is_linked_only_where_there_is_one(shop: ObjectStore) -> None:
    assert f"/reshelve/report/recommend/{ONE}" not in html("ranker.html", ReleaseReader(shop))
    shop.put("runs/r/report/report.html", b"<p>made</p>")
    assert f'href="/reshelve/report/recommend/{ONE}"' in html("ranker.html", ReleaseReader(shop))


def test_the_nights_are_drawn(store: ObjectStore) -> None:
    publish(store, ONE, **gate_of(0.2, "2011-08-28"))
    assert "<svg" not in html("ranker.html", ReleaseReader(store)), "one night is no trend"
    publish(store, TWO, **gate_of(0.25, "2011-08-29", {"version": ONE, "value": 0.21, "difference": 0.04}))
    publish(store, THREE, **gate_of(0.22, "2011-08-30"))
    (drawn,) = [
        svg
        for svg in Outline(html("ranker.html", ReleaseReader(store))).all("svg")
        if svg["class"] == "trend"
    ]
    assert f"{ONE} 0.2000 (promote); {TWO} 0.2500 (promote, {ONE} then 0.2100)" in str(drawn["aria-label"])


def test_the_approval_shows_champion_and_challenger_on_example_shelves(shop: ObjectStore) -> None:
    publish(shop, THREE)
    move_pointer(
        shop, "recommend", Offer(THREE, Plan(approval=True, allow_held=True)), by="anna", reason="tonight's"
    )
    for event, state in ((Event.LOADED, ReleaseState.LOADING), (Event.PROBED, ReleaseState.PROBING)):
        move_pointer(shop, "recommend", Advance(THREE, event, state), by="anna", reason="")
    assert "No example answers" in html("ranker.html", ReleaseReader(shop))
    shelf = Shelf(asked="red <mug>", challenger=("MUG", "CUP"), champion=("BOWL", "CUP"), chosen=("MUG",))
    shop.put_json("runs/r/gate/shelves.json", [shelf.model_dump(mode="json")])
    page = html("ranker.html", ReleaseReader(shop))
    assert '<li class="new">MUG</li><li>CUP</li>' in page and "<li>BOWL</li><li>CUP</li>" in page
    assert "red &lt;mug&gt;" in page and "Chosen: MUG" in words(page)
    shop.put("runs/r/gate/shelves.json", b"{")
    assert "No example answers" in html("ranker.html", ReleaseReader(shop))


def test_in_a_browser_dark_is_as_airflow_s_switch_says_and_pages_fit_a_phone() -> None:
    page_html = render("message.html", style=STYLE, theme=THEME, nonce="n", root="/reshelve", airflow="",
                       title="t", words="w", code=409, back="")  # fmt: skip
    broken = {"source": "retail", "partition": "2011-08-30", "verdict": "stop", "headline": "x" * 300,
              "rules": [{"rule": "a_rule_with_a_long_name" * 4, "severity": "stop", "message": "y" * 200}]}  # fmt: skip
    rows = {str(broken["rules"][0]["rule"]): [("2011-08-30 10:00:00", "purchase", "85123A" * 13, 6, 2.55)]}  # type: ignore[index]
    served = {"page": page_html, "validation": validation_page(broken, rows, ["z" * 300])}
    ours = "style-src 'nonce-n'; script-src 'nonce-n'"
    policies = {
        "page": ours,
        "validation": "sandbox allow-scripts; style-src 'unsafe-inline'",
    }  # evaluate needs scripts
    with chromium() as browser:
        page = browser.new_context(
            color_scheme="light", viewport={"width": PHONE[0], "height": PHONE[1]}
        ).new_page()

        def answer(route: Any) -> None:
            name = route.request.url.rpartition("/")[2]
            policy = f"default-src 'none'; {policies[name]}"
            route.fulfill(
                body=served[name], content_type="text/html", headers={"Content-Security-Policy": policy}
            )

        page.route("**/*", answer)

        def paper() -> str:
            page.goto("http://shop.test/page")
            return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

        light = paper()
        for switch, dark in (("dark", True), ("light", False), ("system", False)):
            page.evaluate(f"localStorage.setItem('theme', '{switch}')")
            assert (paper() != light) is dark, switch
        page.emulate_media(color_scheme="dark")
        assert paper() != light
        page.evaluate("localStorage.setItem('theme', 'light')")
        assert paper() == light, "Airflow's switch goes before the system's"
        page.goto("http://shop.test/validation")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
