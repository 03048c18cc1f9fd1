"""Looks are kept once and the newest are found without the old ones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from reshelve.monitoring import observations
from reshelve.monitoring.observations import Observation, VersionRole, VersionTraffic
from reshelve.store.objects import ObjectStore

NOON = datetime(2011, 8, 30, 12, tzinfo=UTC)


def look(at: datetime) -> Observation:
    traffic = VersionTraffic(version=20110829001, role=VersionRole.STABLE, requests=10, errors=1, p95_ms=12.5)
    return Observation(ranker="recommend", at=at, sequence=4, versions=(traffic,))


def test_the_newest_looks_come_oldest_first(store: ObjectStore) -> None:
    looks = [look(NOON + timedelta(hours=hours)) for hours in (0, 6, 13, 20)]  # over midnight
    for one in looks:
        observations.write(store, one)
    assert observations.recent(store, "recommend", 3) == tuple(looks[1:])
    assert observations.recent(store, "recommend", 1) == (looks[-1],)
    assert observations.recent(store, "recommend", 100) == tuple(looks)
    assert observations.recent(store, "recommend", 0) == ()
    assert observations.recent(store, "search", 5) == ()


def test_the_day_before_is_not_read_where_today_is_enough(store: ObjectStore) -> None:
    observations.write(store, look(NOON))
    store.put("monitoring/recommend/2011-08-29/120000.json", b"damaged")
    assert observations.recent(store, "recommend", 1) == (look(NOON),)
    assert observations.recent(store, "recommend", 5) == (look(NOON),)


def test_a_look_is_never_replaced(store: ObjectStore) -> None:
    first = look(NOON)
    key = observations.write(store, first)
    assert key == "monitoring/recommend/2011-08-30/120000.json"
    observations.write(store, first.model_copy(update={"sequence": 9}))
    assert observations.recent(store, "recommend", 1) == (first,)


def test_rates_are_unknown_without_requests() -> None:
    assert VersionTraffic(version=1, role=VersionRole.STABLE).error_rate is None
    assert VersionTraffic(version=1, role=VersionRole.STABLE, requests=4, errors=1).error_rate == 0.25
    assert VersionTraffic(version=1, role=VersionRole.STABLE, clicks=2, clickable=8).click_through == 0.25
