"""What each page shows: the board's reading beside what the watch measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fastapi import HTTPException

from reshelve.config.ranker import ranker_names
from reshelve.console.health import counted, health
from reshelve.console.release_reader import AgentRow, Deployment, ReleaseReader, VersionRow
from reshelve.errors import DataError
from reshelve_airflow.releases.pages import ago
from reshelve_airflow.releases.traffic import LOOKS, TrafficCurves, curves, decisions
from reshelve_airflow.releases.trend import NIGHTS, trend

if TYPE_CHECKING:
    from reshelve.monitoring.observations import Observation

_UNWATCHED_SECONDS = 3 * 600.0  # three looks of the DAG `monitor` that did not come


@dataclass(frozen=True)
class Card:
    """One version with what it has to do and how it does it; `against`: how it compares with the stable one, in words."""

    row: VersionRow
    traffic: TrafficCurves | None
    against: str


def overview(board: ReleaseReader, may_see: Callable[[str], bool] | None = None) -> dict[str, Any]:
    """Every ranker that has a file or was ever released, and whose name `may_see` lets through."""
    names = sorted(filter(may_see, {*ranker_names(), *board.rankers()}))
    return {"rankers": [_summary_or_problem(board, name) for name in names]}


def ranker_page(board: ReleaseReader, ranker: str, page: int, newest: int | None) -> dict[str, Any]:
    """Everything about one ranker. Raises HTTPException 404 where there is none of that name."""
    if ranker not in ranker_names() and ranker not in board.rankers():
        raise HTTPException(404, f"no ranker {ranker}")
    summary = _summary(board, ranker)
    pointer = summary["deployment"].pointer
    waits = next((card.row.manifest for card in summary["cards"] if card.row.role == "canary"), None)
    return {
        **summary,
        "versions": board.versions(ranker, pointer, page),
        "trend": trend(board.newest(ranker, NIGHTS)),
        "shelves": () if waits is None else board.shelves(waits),
        "left": {} if pointer is None else board.left(pointer),
        "log": None if pointer is None else board.log(pointer, newest),
        "decisions": decisions(summary["looks"]),
    }


def _summary_or_problem(board: ReleaseReader, ranker: str) -> dict[str, Any]:
    """A damaged object of one ranker is said on its card, and no reason to show no other one."""
    try:
        return {"problem": "", **_summary(board, ranker)}
    except DataError as error:
        return {"problem": error.headline, "ranker": ranker}


def _summary(board: ReleaseReader, ranker: str) -> dict[str, Any]:
    deployment = board.deployment(ranker)
    looks = board.looks(ranker, LOOKS)
    reports = [agent.report for agent in deployment.agents]
    there = {report.agent for report in counted(reports)}
    return {
        "ranker": ranker,
        "deployment": deployment,
        "health": health(deployment.pointer, reports),
        "unwatched": _unwatched(looks),
        "held": board.held(ranker),
        "cards": [
            Card(row, curves(looks, row.version), _against_stable(row, deployment.wanted))
            for row in deployment.wanted
        ],
        "silent": [row for row in deployment.agents if not row.live and row.report.agent in there],
        "serving": _serving(deployment),
        "judged": board.last_verdict(ranker),
        "looks": looks,
    }


def _unwatched(looks: Sequence[Observation]) -> str:
    """How long nobody has watched, for people; empty where the watch looks as often as it should."""
    if not looks:
        return "not watched yet"
    since = (datetime.now(UTC) - looks[-1].at).total_seconds()
    return f"not watched for {ago(since)}" if since > _UNWATCHED_SECONDS else ""


def _against_stable(row: VersionRow, wanted: Sequence[VersionRow]) -> str:
    """A version minus the stable one, as a gate measured them side by side; figures of two nights are no comparison."""
    stable = next((other for other in wanted if other.role == "stable"), None)
    if stable is None or row.version == stable.version or row.manifest is None or stable.manifest is None:
        return ""
    found = row.manifest.gate.difference_to(stable.version)
    if found is None:
        turned = stable.manifest.gate.difference_to(row.version)
        found = None if turned is None else -turned
    if found is None:
        return f"never compared with {stable.version} on the same questions"
    return f"{found.signed} against {stable.version}, on the same questions"


def _serving(deployment: Deployment) -> list[AgentRow]:
    """Agents that live and answer with the stable version."""
    stable = deployment.pointer.stable if deployment.pointer else None
    return [agent for agent in deployment.agents if agent.live and agent.report.serving.stable == stable]
