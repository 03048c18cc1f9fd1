"""A ranker, its pointer, and looks at them without a server: the checks are functions of what was collected."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from reshelve.config.ranker import Ranker
from reshelve.deployments.deployment_log import Pointer
from reshelve.monitoring.collect import Collected
from reshelve.monitoring.observations import AgentSeen
from reshelve.monitoring.watch_state import Memory, Stable

NOON = datetime(2011, 8, 30, 12, tzinfo=UTC)
OLD, NEW = 20110828001, 20110829001


@pytest.fixture
def ranker() -> Ranker:
    """A ranker with nothing but defaults."""
    return Ranker.model_validate(
        {
            "name": "recommend",
            "title": "The next item",
            "kind": "next_item",
            "data": {"source": "retail"},
            "gates": {"metric": "recall@20"},
        }
    )


@pytest.fixture
def see(ranker: Ranker) -> Callable[..., Collected]:
    """`see(minutes)`: a look so long after noon at NEW, which came after OLD, with an agent that is well."""

    def made(minutes: float = 0, rules: dict[str, object] | None = None, **values: object) -> Collected:
        pointer = Pointer(
            ranker="recommend", sequence=8, stable=NEW, previous=OLD, moved_at=NOON - timedelta(hours=1)
        )
        agent = AgentSeen(agent="a", live=True, age_seconds=3, stable=NEW)
        given = {"pointer": pointer, "agents": (agent,), **values}
        return Collected(
            ranker=ranker.with_values(rules or {}), now=NOON + timedelta(minutes=minutes), **given
        )  # type: ignore[arg-type]

    return made


@pytest.fixture
def memory() -> Memory:
    """NEW was promoted an hour before noon; the look before was ten minutes before noon."""
    stable = Stable(version=NEW, since=NOON - timedelta(hours=1), came_by="promote", sequence=8)
    return Memory(at=NOON - timedelta(minutes=10), stable=stable)
