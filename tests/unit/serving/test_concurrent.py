"""Which stretches of a deployment log let a session get either version."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

from tests.deployed import put_log

from reshelve.deployments.deployment_log import Entry, Pointer
from reshelve.deployments.release_table import Plan, ReleaseState
from reshelve.rollout.concurrent import Window, release_windows, windows
from reshelve.store.objects import ObjectStore

OLD, NEW = 20110828001, 20110829001
NIGHT = datetime(2011, 8, 29, 4, tzinfo=UTC)
PLAN = Plan(shares=(0.05, 0.25))
OFFERED: dict[str, Any] = {"stable": OLD, "canary": NEW, "plan": PLAN, "state": ReleaseState.LOADING}
FIRST = {**OFFERED, "state": ReleaseState.CANARY, "share": 0.05, "step": 1}
SECOND = {**OFFERED, "state": ReleaseState.CANARY, "share": 0.25, "step": 2}
WAITS = {**SECOND, "state": ReleaseState.APPROVAL}
OVER: dict[str, Any] = {"stable": NEW, "previous": OLD}


def log(*moves: tuple[str, dict[str, Any]]) -> list[Entry]:
    """One move an hour, from 04:00."""
    return [
        Entry(
            sequence=number,
            action=action,
            pointer=Pointer(
                ranker="recommend", sequence=number, moved_at=NIGHT + timedelta(hours=number - 1), **values
            ),
        )
        for number, (action, values) in enumerate(moves, 1)
    ]


def hour(number: int) -> datetime:
    return NIGHT + timedelta(hours=number)


def test_a_window_is_one_share_whatever_else_is_moved() -> None:
    moves = log(
        ("promote", {"stable": OLD}), ("offer", OFFERED), ("probed", FIRST), ("hold", {**FIRST, "held": "?"}),
        ("passed", SECOND), ("passed", WAITS), ("promote", OVER),
    )  # fmt: skip
    assert windows(moves) == [
        Window(3, 4, hour(2), hour(4), OLD, NEW, 0.05, 1),
        Window(5, 6, hour(4), hour(6), OLD, NEW, 0.25, 2),
    ]
    (*_, open_one) = windows(moves[:6])
    assert (open_one.ends, open_one.days(date(2011, 8, 31))) == (
        None,
        [date(2011, 8, 29), date(2011, 8, 30), date(2011, 8, 31)],
    )


def test_without_a_share_there_is_none() -> None:
    at_once = log(
        ("promote", {"stable": OLD}), ("offer", OFFERED), ("promote", OVER), ("rollback", {"stable": OLD})
    )
    assert windows(at_once) == []
    first_ever = {**FIRST, "stable": None}
    assert windows(log(("probed", first_ever), ("promote", {"stable": NEW}))) == []
    everybody = {**FIRST, "plan": Plan(shares=(1.0,)), "share": 1.0}
    assert windows(log(("probed", everybody), ("promote", OVER))) == []


def test_a_release_is_found_from_its_offer_on(store: ObjectStore) -> None:
    moves = log(
        ("offer", OFFERED), ("probed", FIRST), ("withdraw", {"stable": OLD}),
        ("offer", OFFERED), ("probed", FIRST), ("passed", SECOND), ("promote", OVER), ("hold", OVER),
    )  # fmt: skip
    put_log(store, moves)
    found = release_windows(store, moves[-1].pointer, NEW)
    assert [(one.first, one.last, one.share) for one in found] == [(5, 5, 0.05), (6, 6, 0.25)]
    assert release_windows(store, moves[-1].pointer, OLD) == []
