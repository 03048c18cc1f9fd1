"""Housekeeping never removes what serves, may serve, or is being made."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from reshelve.config.ranker import Ranker
from reshelve.deployments.deployment_log import Offer, Revert, move_pointer
from reshelve.errors import DataError
from reshelve.lineage.run import Run, run_stage
from reshelve.pipeline import retention
from reshelve.pipeline.retention import clean
from reshelve.processes import wait_until
from reshelve.settings import settings
from reshelve.store.objects import ObjectStore
from reshelve.store.verdicts import signed_manifest
from reshelve.store.versions import list_versions

VERSIONS = [20110820001 + 1000 * n for n in range(8)]


@pytest.fixture
def ranker() -> Ranker:
    """A ranker that keeps its two newest versions."""
    return Ranker.model_validate(
        {
            "name": "recommend",
            "title": "The next item",
            "kind": "next_item",
            "data": {"source": "retail"},
            "gates": {"metric": "recall@20"},
            "release": {"keep": 2},
        }
    )


@pytest.fixture
def published(store: ObjectStore, make_stable: Callable[..., Any]) -> ObjectStore:
    """Eight versions; the oldest stable, the next previous, the third canary; an upload under way and a dead one."""
    for version in VERSIONS:
        prefix = f"models/recommend/{version}"
        store.put(f"{prefix}/saved_model.pb", b"x")
        claim(store, version, timedelta(days=9))
        manifest = {
            "ranker": "recommend",
            "version": version,
            "kind": "next_item",
            "created_at": "2011-08-31T03:00:00Z",
            "files": {"saved_model.pb": {"sha256": "0" * 64, "size": 1}},
            "lineage": {"partition": "2011-08-20", "run": "r", "spec_digest": "d", "code_version": "c"},
            "gate": {"verdict": "promote"},
        }
        store.put_json(f"{prefix}/manifest.json", signed_manifest(manifest))
    for version in (VERSIONS[4], VERSIONS[1], VERSIONS[0]):
        make_stable(store, "recommend", version)
    move_pointer(store, "recommend", Offer(VERSIONS[2]), by="test", reason="")
    for version, age in ((20110901001, timedelta(minutes=1)), (20110902001, timedelta(days=2))):
        claim(store, version, age)
        store.put(f"models/recommend/{version}/saved_model.pb", b"half")
    for day in ("2011-08-01", "2011-08-20", "2011-08-27"):
        store.put_json(f"runs/recommend/{day}/abc/train/result.json", {})
    return store


def claim(store: ObjectStore, version: int, age: timedelta) -> None:
    at = (datetime.now(UTC) - age).isoformat()
    store.put_json(f"models/recommend/{version}/claim.json", {"run": "r", "at": at})


def test_a_dry_run_deletes_nothing(published: ObjectStore, ranker: Ranker) -> None:
    before = list(published.list(""))
    result = clean(ranker, dry_run=True)
    assert result["versions"] == VERSIONS[3:6]
    assert result["kept"] == [*VERSIONS[:3], *VERSIONS[6:]]
    assert list(published.list("")) == before


def test_what_serves_and_the_newest_stay(
    published: ObjectStore, ranker: Ranker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_QUIET_WORK", timedelta(0))
    result = clean(ranker, dry_run=False)
    assert result["unfinished"] == [20110902001]
    assert list_versions(published, "recommend") == [*VERSIONS[:3], *VERSIONS[6:]]
    gone = [key for key, _ in published.list(f"models/recommend/{VERSIONS[3]}/")]
    assert gone == [f"models/recommend/{VERSIONS[3]}/claim.json"]  # its integer is never used again
    assert published.exists("models/recommend/20110901001/saved_model.pb")  # its publisher may live
    assert not published.exists("models/recommend/20110902001/saved_model.pb")
    days = [key.split("/")[2] for key, _ in published.list("runs/recommend/")]
    assert days == ["2011-08-20", "2011-08-27"]
    assert clean(ranker, dry_run=False)["versions"] == []


def test_work_that_was_touched_lately_stays(published: ObjectStore, ranker: Ranker) -> None:
    assert clean(ranker, dry_run=False)["runs"] == []  # a backfill may be busy with old partitions


def test_a_version_offered_meanwhile_is_put_back(
    published: ObjectStore, ranker: Ranker, monkeypatch: pytest.MonkeyPatch
) -> None:
    doomed = VERSIONS[4]
    monkeypatch.setattr(retention, "_kept", lambda *_: {v for v in VERSIONS if v != doomed})
    move_pointer(published, "recommend", Revert(doomed), by="test", reason="after housekeeping looked")
    assert clean(ranker, dry_run=False)["versions"] == []
    assert doomed in list_versions(published, "recommend")
    assert published.exists(f"models/recommend/{doomed}/saved_model.pb")


def test_old_looks_and_requests_go(store: ObjectStore, ranker: Ranker) -> None:
    today = datetime.now(UTC).date()
    kept, old = today - timedelta(days=9), today - timedelta(days=11)
    for day in (kept, old):
        store.put(f"monitoring/recommend/{day}/120000.json", b"{}")
        store.put(f"requests/recommend/dt={day}/part.parquet", b"")
    store.put("monitoring/recommend/memory.json", b"{}")
    rules = ranker.with_values({"watch.keep_days": 10})
    wanted = [f"monitoring/recommend/{old}", f"requests/recommend/dt={old}"]
    assert clean(rules, dry_run=True)["days"] == wanted
    assert clean(rules, dry_run=False)["days"] == wanted
    left = [key for key, _ in store.list("")]
    assert sorted(left) == [
        f"monitoring/recommend/{kept}/120000.json",
        "monitoring/recommend/memory.json",
        f"requests/recommend/dt={kept}/part.parquet",
    ]


def test_reports_of_callers_that_ended_go(
    store: ObjectStore, ranker: Ranker, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [f"deployments/recommend/{kind}/one.json" for kind in ("agents", "traffic")]
    for key in (*keys, "deployments/recommend/hold.json"):
        store.put(key, b"{}")
    assert clean(ranker, dry_run=False)["reports"] == []
    monkeypatch.setattr(retention, "_SILENT", timedelta(0))
    seen = functools.partial(clean, ranker, dry_run=True)
    wait_until(lambda: seen()["reports"] == keys, 10, "a second: S3 counts those")
    assert clean(ranker, dry_run=False)["reports"] == keys
    assert [key for key, _ in store.list("")] == ["deployments/recommend/hold.json"]


def test_what_a_run_holds_of_customers_goes_before_the_run(
    store: ObjectStore, ranker: Ranker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(run: Run) -> dict[str, Any]:
        (run.stage("examples").directory / "events.parquet").write_bytes(b"rows")
        return {"rows": 1}

    run = Run(ranker, date(2011, 8, 27), store, settings().work)
    other = Run(ranker, date(2011, 8, 27), store, settings().home / "elsewhere")
    run_stage(run, "examples", make)
    key = f"{run.stage('examples').prefix}/events.parquet"
    assert clean(ranker, dry_run=False)["examples"] == [] and store.exists(key)
    monkeypatch.setattr(retention, "EXAMPLES_KEPT", timedelta(seconds=-1))
    assert clean(ranker, dry_run=True)["examples"] == [run.stage("examples").prefix] and store.exists(key)
    clean(ranker, dry_run=False)
    assert not store.exists(key) and run.stage("examples").required()["rows"] == 1
    with pytest.raises(DataError, match="kept no longer"):
        other.stage("examples").files()
    monkeypatch.undo()
    again = run_stage(other, "examples", make)  # whoever begins it again reads anew
    assert again["reused"] is False and store.exists(key)
    assert run_stage(other, "examples", make)["reused"] is True


@pytest.mark.parametrize("used", ["pin.json", "examples/result.json"])
def test_examples_that_a_run_of_the_day_may_have_taken_over_stay(
    store: ObjectStore, ranker: Ranker, monkeypatch: pytest.MonkeyPatch, used: str
) -> None:
    """Two nights of one partition share the stage: the second began lately, and reads the first one's files."""
    touched: dict[str, datetime] = {}
    monkeypatch.setattr(
        store, "last_modified", lambda key: touched.get(key, datetime(2011, 9, 1, tzinfo=UTC))
    )
    monkeypatch.setattr(retention, "object_store", lambda: store)
    first, second = (f"runs/recommend/2011-08-27/{name}" for name in ("aaa", "bbb"))
    for key in (f"{first}/examples/events.parquet", f"{second}/{used}"):
        store.put(key, b"{}")
    assert clean(ranker, dry_run=True)["examples"] == [f"{first}/examples"]
    touched[f"{second}/{used}"] = datetime.now(UTC)
    assert clean(ranker, dry_run=True)["examples"] == []


def test_work_that_nothing_uses_goes(store: ObjectStore, ranker: Ranker) -> None:
    old, busy, scratch, others = (
        settings().work / name
        for name in ("recommend/2011-08-01/aaa", "recommend/2011-08-02/bbb", "land-x1", "history")
    )
    for directory in (old, busy, scratch, others):
        (directory / "examples").mkdir(parents=True)
        (directory / "examples" / "events.parquet").write_bytes(b"rows")
        for path in (directory / "examples" / "events.parquet", directory / "examples", directory):
            os.utime(path, (0, 0))
    (busy / "examples" / "new").touch()
    assert clean(ranker, dry_run=True)["work"] == [str(scratch), str(old)] and old.is_dir()
    clean(ranker, dry_run=False)
    assert [path.exists() for path in (old, busy, scratch, others)] == [False, True, False, True]


def test_vectors_of_titles_go_with_the_last_version_of_their_encoder_and_when_they_are_old(
    published: ObjectStore, ranker: Ranker, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = f"models/recommend/{VERSIONS[0]}/assets.extra/reshelve.json"
    published.put_json(about, {"encoder": "aaa"})
    used, unused = (f"encoded/recommend/{encoder}/part.parquet" for encoder in ("aaa", "bbb"))
    for key in (used, unused):
        published.put(key, b"rows")
    assert clean(ranker, dry_run=True)["encoded"] == [], "a night may be about to publish its version"
    monkeypatch.setattr(retention, "_QUIET_WORK", timedelta(seconds=-1))
    assert clean(ranker, dry_run=True)["encoded"] == [unused] and published.exists(unused)
    assert clean(ranker, dry_run=False)["encoded"] == [unused]
    assert (published.exists(used), published.exists(unused)) == (True, False)
    monkeypatch.setattr(retention, "ENCODED_KEPT", timedelta(seconds=-1))
    assert clean(ranker, dry_run=False)["encoded"] == [used] and not published.exists(used)
