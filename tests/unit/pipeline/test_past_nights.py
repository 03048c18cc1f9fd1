"""Which runs are past nights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.searching_shop import searching_run

from reshelve.pipeline.past_nights import past_nights
from reshelve.store.objects import ObjectStore


def test_a_refresh_trains_nothing_and_is_no_past_night(store: ObjectStore, tmp_path: Path) -> None:
    run = searching_run(store, tmp_path / "work", tmp_path)
    night, refreshed = (replace(run, begun=digit * 12) for digit in "12")
    night.stage("examples").commit({"seconds": 60.0, "train": 9})
    refreshed.stage("examples").commit({"seconds": 1.0, "train": 9, "refreshed": {"parent": 20110808001}})
    (found,) = past_nights(run)
    assert found.stages == {"examples": 60.0}
