"""Releases of a drawn shop with a daily cycle, through the code that judges them: benchmarks/bench_clicks.py in small."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from reshelve.client.request_log import table
from reshelve.config.rollout import CanaryClicks
from reshelve.settings import PROJECT

pytestmark = pytest.mark.slow

ANY_DROP = CanaryClicks(max_drop=0.0, min_sessions=200)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(PROJECT / "benchmarks"))
    import bench_clicks

    return bench_clicks


def test_no_release_of_an_equal_version_is_taken_back(bench: Any) -> None:
    """Looked at every hour; pooling by version would take some of them back."""
    pooled = dict.fromkeys((scenario.name for scenario in bench.SCENARIOS), 0)
    for scenario in bench.SCENARIOS:
        for seed in (1, 2):
            days = list(bench.Replay(scenario, bench.ranker(), seed).days())
            strata = [stratum for day in days for stratum in day.strata]
            assert bench.looked_at(strata, ANY_DROP) is None, (scenario.name, seed)
            assert bool(strata) is ("no canary" not in scenario.name)
            pooled[scenario.name] += any(bench.pooled(day) for day in days)
    assert pooled["no canary, released at 04:00"] >= 1


def test_fewer_clicks_are_found(bench: Any) -> None:
    shop = bench.Shop(sessions_a_day=12_000)
    scenario = bench.Scenario("half", (bench.Step(4, 0.5),), 3, shop)
    strata = [s for day in bench.Replay(scenario, bench.ranker(), 5, bench.much).days() for s in day.strata]
    assert bench.looked_at(strata, ANY_DROP.model_copy(update={"max_drop": 0.05})) is not None


def test_the_replay_s_rows_are_the_request_log_s(bench: Any) -> None:
    rows = bench.request_rows(
        np.array(["2011-08-29T12:00"], "datetime64[us]"), np.array(["a"], object), [7], [3]
    )
    assert rows.schema == table([], (), bench.FIRST.date()).schema and rows.to_pylist()[0]["meant"] == 7
