"""What the Releases page shows, read from a real object store and rendered; who may see it is in test_security.py."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from reshelve.console.release_reader import ENTRIES_A_PAGE, VERSIONS_A_PAGE, ReleaseReader
from reshelve.deployments import freeze
from reshelve.deployments.deployment_log import Advance, Offer, move_pointer
from reshelve.deployments.release_table import Event, Plan, ReleaseState
from reshelve.monitoring import observations
from reshelve.monitoring.observations import (
    Action,
    Condition,
    Observation,
    VersionRole,
    VersionTraffic,
    WatchDecision,
)
from reshelve.processes import free_port
from reshelve.protocol.reports import Report, Serving, write_report
from reshelve.store.objects import ObjectStore
from reshelve.store.verdicts import signed_manifest
from reshelve_airflow.releases.access import DAGS
from reshelve_airflow.releases.contents import overview, ranker_page
from reshelve_airflow.releases.pages import render
from reshelve_airflow.releases.sparklines import sparkline

pytestmark = pytest.mark.slow

ONE, TWO, THREE = 20110828001, 20110829001, 20110830001
EVIL = '<script>alert("1")</script>'


def publish(store: ObjectStore, version: int, **gate: Any) -> None:
    manifest = {
        "ranker": "recommend",
        "version": version,
        "kind": "next_item",
        "created_at": "2011-08-31T03:00:00Z",
        "files": {"saved_model.pb": {"sha256": "0" * 64, "size": 1}},
        "lineage": {"partition": "2011-08-30", "run": "r", "spec_digest": "d", "code_version": "c"},
        "gate": {"verdict": "promote", "reasons": ["surely better than popularity"], **gate},
    }
    store.put_json(f"models/recommend/{version}/manifest.json", signed_manifest(manifest))


@pytest.fixture
def shop(store: ObjectStore, make_stable: Any) -> ObjectStore:
    """One, then two are stable; three is a canary; one agent of two lives; the watch has looked twice."""
    for version in (ONE, TWO):
        publish(store, version)
        make_stable(store, "recommend", version)
    publish(store, THREE, verdict="hold", reasons=[EVIL])
    move_pointer(
        store,
        "recommend",
        Offer(THREE, Plan(approval=True, allow_held=True)),
        by=f"anna {EVIL}",
        reason=f"why {EVIL}",
    )
    now = datetime.now(UTC)
    serving = Serving(stable=TWO, previous=ONE, available=(ONE, TWO))
    write_report(store, "recommend", Report(agent="alive", server="h:1", at=now, sequence=9, serving=serving))
    for minutes, errors in ((20, 0), (10, 5)):
        traffic = VersionTraffic(
            version=TWO, role=VersionRole.STABLE, requests=100, errors=errors, p95_ms=12.5
        )
        decision = WatchDecision(condition=Condition.BAD_VERSION, action=Action.ALERT, reason=f"slow {EVIL}")
        look = Observation(
            ranker="recommend", at=now - timedelta(minutes=minutes), versions=(traffic,), decision=decision
        )
        observations.write(store, look)
    return store


@pytest.fixture
def waits_for_another(store: ObjectStore, make_stable: Any) -> ObjectStore:
    """Anna requested the release of two, and another person has to approve it."""
    for version in (ONE, TWO):
        publish(store, version)
    make_stable(store, "recommend", ONE)
    plan = Plan(approval=True, another_person=True, requested_by="anna")
    move_pointer(store, "recommend", Offer(TWO, plan), by="anna", reason="")
    for change in (
        Advance(TWO, Event.LOADED, ReleaseState.LOADING),
        Advance(TWO, Event.PROBED, ReleaseState.PROBING),
        Advance(TWO, Event.HOLD, ReleaseState.APPROVAL, held="waits for a person"),
    ):
        move_pointer(store, "recommend", change, by="anna", reason="")
    return store


def html(template: str, board: ReleaseReader, **more: Any) -> str:
    content = overview(board) if template == "overview.html" else ranker_page(board, "recommend", 1, None)
    shown = {
        "acts": frozenset(DAGS),
        "own": False,
        "token": "secret-token",
        "started": None,
        **content,
        **more,
    }
    return render(template, style="", nonce="n", root="/reshelve", airflow="", **shown)


class Outline(HTMLParser):
    """Tags with their attributes, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def words(text: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", text).split())


def test_a_ranker_s_page_says_what_serves_what_was_decided_and_why(shop: ObjectStore) -> None:
    page = words(html("ranker.html", ReleaseReader(shop)))
    for said in (
        f"Stable promote {TWO}",
        f"Canary hold {THREE}",
        f"Previous promote {ONE}",
        "surely better than popularity",
        "p95 12.5 ms",
        "errors 2.5 % of 200",
        "alive h:1",
        "serves it",
        "bad version",
        f"Roll back Serve again {ONE} (previous)",
        f"Withdraw {THREE}",
        "Every move of the pointer, newest first; 9 entries",
    ):
        assert said in page, said
    moves = re.findall(
        r"(\d+) [-\d]+ [:\d]+ UTC (offer|loaded|probed|promote) ", page.partition("Deployment log")[2]
    )
    assert moves[:2] == [("9", "offer"), ("8", "promote")]


def gate_of(value: float, day: str, champion: dict[str, Any] | None = None) -> dict[str, Any]:
    challenger = {"value": value, "low": value - 0.02, "high": value + 0.02}
    return {"metric": "recall@20", "challenger": challenger, "champion": champion, "queries": 842,
            "holdout_partitions": [day], "question_set": day.replace("-", "")[2:]}  # fmt: skip


def test_versions_of_two_days_are_compared_on_the_same_questions_alone(
    store: ObjectStore, make_stable: Any
) -> None:
    # By their own days the newer one is 0.07 better; asked the same questions it may be worse.
    publish(store, ONE, **gate_of(0.2000, "2011-08-28"))
    make_stable(store, "recommend", ONE)
    publish(store, TWO, **gate_of(0.1881, "2011-08-29"))
    make_stable(store, "recommend", TWO)
    against = {
        "version": TWO,
        "value": 0.2455,
        "difference": 0.009,
        "difference_low": -0.015,
        "difference_high": 0.036,
    }
    publish(store, THREE, **gate_of(0.2545, "2011-08-30", against))
    move_pointer(store, "recommend", Offer(THREE, Plan(allow_held=True)), by="anna", reason="tonight's")
    page = words(html("ranker.html", ReleaseReader(store)))
    for said in (
        "0.1881 (0.1681 to 0.2081) 842 questions of 2011-08-29, set 110829",
        "0.2545 (0.2345 to 0.2745) 842 questions of 2011-08-30, set 110830",
        f"+0.0090 (-0.0150 to +0.0360) against {TWO}, on the same questions",
        f"never compared with {TWO} on the same questions",
        f"+0.0090 (-0.0150 to +0.0360) against {TWO}",
    ):
        assert said in page, said
    # After the promotion it is the way back that was measured beside it.
    make_stable(store, "recommend", THREE)
    back = words(html("ranker.html", ReleaseReader(store)))
    assert f"-0.0090 (-0.0360 to +0.0150) against {THREE}, on the same questions" in back


def test_everything_that_others_wrote_is_escaped(shop: ObjectStore) -> None:
    for template in ("ranker.html", "overview.html"):
        text = html(template, ReleaseReader(shop))
        assert "<script" not in text
    assert "&lt;script&gt;" in html("ranker.html", ReleaseReader(shop))


def test_it_can_be_used_by_keyboard_and_screen_reader_and_loads_nothing(shop: ObjectStore) -> None:
    text = html("ranker.html", ReleaseReader(shop))
    outline = Outline(text)
    labelled = {attributes["for"] for attributes in outline.all("label") if "for" in attributes}
    for field in [*outline.all("input"), *outline.all("select")]:
        if field.get("type") not in ("hidden", "checkbox"):
            assert field["id"] in labelled, field
    ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert len(outline.all("table")) == len(outline.all("caption")) >= 4
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in outline.all("svg"))
    assert all(column.get("scope") for column in outline.all("th"))
    assert len(outline.all("h1")) == 1 and outline.all("html") == [{"lang": "en"}]
    assert any(meta.get("name") == "viewport" for meta in outline.all("meta"))
    assert not re.search(r"(?:src|href|action)=\"(?:https?:)?//", text)
    assert outline.all("script") == [] and "style=" not in text


def test_who_may_only_look_gets_no_form(shop: ObjectStore) -> None:
    text = html("ranker.html", ReleaseReader(shop), acts=frozenset(), token="")
    assert Outline(text).all("form") == []
    assert "You may look" in text
    forms = Outline(html("ranker.html", ReleaseReader(shop))).all("form")
    assert {str(form["action"]).rpartition("/")[2] for form in forms} == {"hold", "rollback", "release"}


def test_each_form_is_for_who_may_start_its_dag(shop: ObjectStore) -> None:
    for button in ("hold", "rollback", "release"):
        forms = Outline(html("ranker.html", ReleaseReader(shop), acts=frozenset({button}))).all("form")
        assert [str(form["action"]).rpartition("/")[2] for form in forms] == [button]


def test_who_requested_is_told_that_another_person_has_to_approve(waits_for_another: ObjectStore) -> None:
    mine, others = (html("ranker.html", ReleaseReader(waits_for_another), own=own) for own in (True, False))
    form = 'action="/reshelve/releases/recommend/approve"'
    assert "You requested the release" in words(mine) and form not in mine
    assert "You requested the release" not in words(others) and form in others
    assert "anna requested it" in words(others)


def test_a_silent_agent_is_marked(shop: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reshelve.console.release_reader.LIVE_SECONDS", 0.0)
    page = words(html("ranker.html", ReleaseReader(shop)))
    assert "1 of 1 agents are silent: alive" in page
    assert "0 of 1 serve it 1 silent" in words(html("overview.html", ReleaseReader(shop)))


def test_a_hold_is_shown_on_both_pages(shop: ObjectStore) -> None:
    assert "Release freeze" not in html("ranker.html", ReleaseReader(shop)) + html(
        "overview.html", ReleaseReader(shop)
    )
    freeze.hold(shop, "recommend", by="watch", reason=f"broken data {EVIL}", cause="retail")
    for template in ("ranker.html", "overview.html"):
        text = html(template, ReleaseReader(shop))
        assert "Release freeze: broken data" in words(text) and EVIL not in text


def test_what_is_damaged_of_one_ranker_takes_no_other_from_the_overview(shop: ObjectStore) -> None:
    shop.put("deployments/broken/pointer.json", b"{")
    shop.put("runs/recommend/2011-08-30/aa/gate/result.json", b"[]")
    page = words(html("overview.html", ReleaseReader(shop)))
    assert "broken damaged deployments/broken/pointer.json is damaged" in page
    assert f"Stable {TWO}" in page
    done = subprocess.run(
        [sys.executable, "-m", "reshelve.cli", "status", "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 65 and "reshelve: what is stored of broken is damaged" in done.stderr
    found = json.loads(done.stdout)
    assert found["recommend"]["pointer"]["stable"] == TWO and "is damaged" in found["broken"]["problem"]


def test_long_lists_come_in_pages(store: ObjectStore, make_stable: Any) -> None:
    numbers = [20110801001 + 1000 * day for day in range(VERSIONS_A_PAGE + 3)]
    for version in numbers:
        publish(store, version)
        make_stable(store, "recommend", version)
    board = ReleaseReader(store)
    pointer = board.deployment("recommend").pointer
    assert pointer is not None
    first, second = board.versions("recommend", pointer, 1), board.versions("recommend", pointer, 99)
    assert [row.version for row in (*first.rows, *second.rows)] == numbers[::-1]
    assert (second.page, second.pages) == (2, 2)
    newest = board.log(pointer)
    assert [entry.sequence for entry in newest.entries][:2] == [pointer.sequence, pointer.sequence - 1]
    assert newest.newer is None and newest.older == pointer.sequence - ENTRIES_A_PAGE
    older = board.log(pointer, newest.older)
    assert older.newer == pointer.sequence and older.entries[0].sequence == newest.older
    assert board.log(pointer, 1).older is None


def test_what_cannot_be_believed_is_said_beside_the_version(shop: ObjectStore) -> None:
    shop.put_json(f"models/recommend/{TWO}/manifest.json", {"ranker": "recommend", "version": TWO})
    assert "its manifest is not signed" in words(html("ranker.html", ReleaseReader(shop)))
    shop.delete([f"models/recommend/{ONE}/manifest.json"])
    page = words(html("ranker.html", ReleaseReader(shop)))
    assert "1 of this page were removed or are not finished" in page


def test_a_manifest_is_remembered_and_its_end_is_noticed(
    shop: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = ReleaseReader(shop)
    assert board.version("recommend", ONE).manifest is not None
    shop.delete([f"models/recommend/{ONE}/manifest.json"])
    assert board.version("recommend", ONE).manifest is not None, "within a minute it is not asked for again"
    monkeypatch.setattr("reshelve.console.release_reader._ASK_AGAIN_SECONDS", 0.0)
    assert board.version("recommend", TWO).manifest is not None
    assert board.version("recommend", ONE).manifest is None


def test_the_last_verdict_is_also_that_of_a_night_without_a_version(shop: ObjectStore) -> None:
    for run, verdict in (("2011-08-30/aa", "promote"), ("2011-08-31/bb", "reject")):
        result = {"verdict": verdict, "reasons": [f"{verdict} because"], "metric": "recall@20"}
        shop.put_json(f"runs/recommend/{run}/gate/result.json", result)
    assert "reject for the night of 2011-08-31" in words(html("ranker.html", ReleaseReader(shop)))


def test_a_curve_says_in_words_what_it_shows() -> None:
    drawn = str(sparkline([1.0, None, 2.0, 3.0], 'p95 of "x"'))
    assert 'aria-label="p95 of &#34;x&#34;"' in drawn
    assert drawn.count("<polyline") == 1, "a gap parts the curve; a single point is no line"
    assert sparkline([None], "nothing") == ""


def the_server_starts(project: Path, **variables: str) -> str:
    """Airflow's own application, begun as its server begins it; its log, once the pages are there."""
    code = (
        "import logging, sys; from airflow.api_fastapi.app import create_app; app = create_app(apps='core'); "
        "assert 'reshelve_airflow.releases.app' not in sys.modules, 'so it is not the import that this shows'; "
        "app.build_middleware_stack(); from reshelve_airflow.releases.app import board; "
        "print('READ', board.cache_info().currsize)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": f"{project}/include:{project}/plugins", **variables},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout + done.stderr


def test_the_server_has_the_pages_ready_before_its_first_request(shop: ObjectStore, project: Path) -> None:
    said = the_server_starts(project)
    assert "READ 1" in said and "could not be prepared yet" not in said


def test_the_server_starts_without_its_object_store(store: ObjectStore, project: Path) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    said = the_server_starts(project, AWS_ENDPOINT_URL=nobody)
    assert "READ 1" in said and "the Releases page could not be prepared yet" in said


def test_the_server_starts_with_an_address_that_is_none(store: ObjectStore, project: Path) -> None:
    said = the_server_starts(project, AWS_ENDPOINT_URL="no address at all")
    assert "READ 0" in said and "the Releases page could not be prepared yet" in said


def test_the_web_process_never_loads_the_heavy_libraries(project: Path) -> None:
    code = (
        "import sys; from reshelve_airflow.plugin import ReshelvePlugin as P; "
        "assert 'fastapi' not in sys.modules and 'boto3' not in sys.modules, 'every task would pay for it'; "
        "P.fastapi_apps[0]['app'].app; import reshelve_airflow.releases.contents, reshelve.store.objects; "
        "print(sorted({'torch', 'tensorflow', 'great_expectations', 'duckdb', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": f"{project}/include:{project}/plugins"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "[]"
