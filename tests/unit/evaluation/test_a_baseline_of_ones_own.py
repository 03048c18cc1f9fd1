"""A baseline is one Baseline: ranker files may ask for it, the gate ranks by it, and reports name it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path

import numpy as np
import pytest

from reshelve.clickstream.remember import EVERYTHING
from reshelve.errors import ConfigurationError
from reshelve.evaluation import baselines as registry
from reshelve.evaluation.baseline_ranking import Baselines
from reshelve.evaluation.baselines import Baseline, baselines, register
from reshelve.examples.catalogue import Catalogue
from reshelve.examples.event_counts import EventCounts
from reshelve.examples.formats import EVENTS, HoldoutQuery, write_rows
from reshelve.pipeline.references import load_ranker
from reshelve.reporting.sections.quality import label, named
from reshelve.settings import PROJECT, settings

LATEST = Baseline(
    "last_listed",
    "newest in the catalogue",
    lambda past, query: [np.arange(len(past.catalogue), dtype=np.float64)],
    kinds=frozenset({"pair"}),
)


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_BASELINES", dict(registry._BASELINES))
    register(LATEST)


@pytest.fixture
def rankers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in ("ads", "recommend"):
        source = (PROJECT / "include" / "rankers" / f"{name}.yaml").read_text().splitlines()
        lines = [
            "  beats: [popularity, last_listed]" if line.startswith("  beats:") else line for line in source
        ]
        (tmp_path / f"{name}.yaml").write_text("\n".join(lines) + "\n")
    monkeypatch.setenv("RESHELVE_RANKERS_DIR", str(tmp_path))
    settings.cache_clear()
    yield tmp_path
    settings.cache_clear()


def test_the_gate_ranks_by_it(added: None, tmp_path: Path) -> None:
    catalogue = Catalogue(["a", "b", "c"], ["cup", "lamp", "bag"], [3, 2, 1], [3, 2, 1])
    at = datetime(2011, 8, 29)
    row = {
        "event_time": at,
        "event_type": "click",
        "user_id": None,
        "session_id": "s",
        "query": "cup",
        "item_id": "a",
    }
    write_rows(tmp_path / "events.parquet", EVENTS, [row])
    counts = EventCounts(
        tmp_path / "events.parquet",
        catalogue,
        {"click": 1.0},
        date(2011, 8, 30),
        tmp_path / "spill",
        EVERYTHING,
    )
    query = HoldoutQuery("q", "cup", ["a"], 1.0, "c", [], [])
    ranked = Baselines(counts, "pair")
    assert ranked.names == ("popularity", "bm25", "cooccurrence", "last_listed")
    assert ranked.rank("last_listed", query, 3) == ["c", "b", "a"]
    assert "last_listed" not in Baselines(counts, "next_item").names


def test_a_ranker_file_may_ask_for_it(added: None, rankers: Path) -> None:
    assert load_ranker("ads").gates.beats == ("popularity", "last_listed")


def test_a_ranker_of_another_kind_may_not(added: None, rankers: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"recommend.yaml:\d+: gates.beats: last_listed: no baseline of a next_item"
    ):
        load_ranker("recommend")


def test_without_it_the_file_is_refused_with_its_line_and_the_names(rankers: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"ads.yaml:\d+: gates.beats: last_listed") as caught:
        load_ranker("ads")
    assert "popularity, bm25, cooccurrence" in caught.value.detail


def test_reports_call_it_by_its_label(added: None) -> None:
    assert label("last_listed") == "newest in the catalogue"
    assert list(named({"last_listed": 1, "challenger": 2})) == ["this version", "newest in the catalogue"]


def test_the_page_of_the_gate_says_what_each_counts() -> None:
    page = (PROJECT / "docs" / "reference" / "evaluation.md").read_text()
    assert all(f"| `{each.name}` |" in page for each in baselines())


def test_a_name_that_is_taken_is_refused(added: None) -> None:
    with pytest.raises(ValueError, match="last_listed"):
        register(LATEST)
