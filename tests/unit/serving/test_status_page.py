"""`reshelve status` for a person: what serves, where, since when, and whether it is well."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.deployed import put_version

from reshelve.config.ranker import ranker_names
from reshelve.console.status import status
from reshelve.console.status_page import page
from reshelve.deployments.deployment_log import Advance, Offer, move_pointer, read_log
from reshelve.deployments.release_table import Event, ReleaseState
from reshelve.protocol.reports import Report, Serving, write_report
from reshelve.store.objects import ObjectStore

OLD, NEW, NEXT = 20110829001, 20110830001, 20110831001


@pytest.fixture
def released(store: ObjectStore, make_stable: Callable[..., Any]) -> ObjectStore:
    """Three versions: the second is stable, the first the way back, the third is being released."""
    for version in (OLD, NEW, NEXT):
        put_version(
            store, "recommend", version,
            files={"saved_model.pb": {"sha256": "0" * 64, "size": 24_000_000}},
            gate={"verdict": "promote", "metric": "recall@20", "challenger": {"value": 0.2545}},
        )  # fmt: skip
    for version in (OLD, NEW):
        make_stable(store, "recommend", version)
    move_pointer(store, "recommend", Offer(NEXT), by="anna", reason="the new season")
    move_pointer(
        store,
        "recommend",
        Advance(NEXT, Event.LOADED, ReleaseState.LOADING),
        by="anna",
        reason="the new season",
    )
    return store


def report(store: ObjectStore, name: str, stable: int, error: str | None = None) -> None:
    serving = Serving(stable=stable, available=(OLD, stable))
    told = Report(
        agent=name, server="h:8500", at=datetime.now(UTC), sequence=99, serving=serving, error=error
    )
    write_report(store, "recommend", told)


def shown(store: ObjectStore) -> list[str]:
    return list(page(store, status("recommend"), width=None))


def test_what_serves_where_and_since_when(released: ObjectStore) -> None:
    report(released, "local", NEW)
    lines = shown(released)
    promoted = next(e.pointer for e in read_log(released, "recommend") if e.pointer.stable == NEW)
    assert promoted.moved_at is not None
    assert lines[0] == "recommend: healthy"
    text = "\n".join(" ".join(line.split()) for line in lines)
    assert f"serves version {NEW} since {promoted.moved_at:%Y-%m-%d %H:%M} UTC" in text
    assert f"way back version {OLD}" in text
    assert f"release version {NEXT}: probing" in text
    assert "by anna: the new season" in text
    assert f"local h:8500 {NEW} {OLD}, {NEW}" in text
    assert f"{NEXT} 2011-08-30 promote 0.2545 24.0 MB" in text


@pytest.mark.parametrize(
    ("stable", "error", "said"),
    [
        (OLD, None, f"NOT HEALTHY: agent local answers with {OLD} in place of {NEW}"),
        (NEW, "the disk is full", "NOT HEALTHY: agent local says: the disk is full"),
    ],
)
def test_what_is_not_well_is_said_first(
    released: ObjectStore, stable: int, error: str | None, said: str
) -> None:
    report(released, "local", stable, error)
    assert shown(released)[0] == f"recommend: {said}"


def test_a_host_that_was_replaced_is_no_host_that_ails(released: ObjectStore) -> None:
    def three_days_later() -> list[str]:
        found = status("recommend")
        for agent in found["recommend"]["agents"]:
            if agent["agent"] == "old-pod":
                agent |= {"live": False, "age_seconds": 3 * 86_400.0}
        return list(page(released, found, width=None))

    report(released, "old-pod", OLD)
    assert three_days_later()[0] == "recommend: NOT HEALTHY: agent old-pod has been silent for 3 days"
    report(released, "new-pod", NEW)
    lines = three_days_later()
    assert lines[0] == "recommend: healthy" and any("old-pod" in line for line in lines)


def test_a_damaged_entry_of_the_log_hides_nothing_of_what_serves(released: ObjectStore) -> None:
    report(released, "local", NEW)
    newest = max(key for key, _ in released.list("deployments/recommend/log/"))
    released.put(newest, b"{")
    lines = shown(released)
    assert lines[0] == f"recommend: TAMPERED WITH, version {NEW} stays in force"
    assert any("or before" in line for line in lines) and any(str(NEXT) in line for line in lines)


def test_without_a_report_nothing_is_claimed(released: ObjectStore) -> None:
    assert shown(released)[0] == "recommend: no agent reports: it is unknown what serves"


def test_the_verb_shows_every_ranker(store: ObjectStore) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "reshelve.cli", "status"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert {f"{name}: nothing serves yet" for name in ranker_names()} <= set(done.stdout.splitlines())
