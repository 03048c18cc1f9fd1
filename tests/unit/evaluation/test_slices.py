from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reshelve.clickstream.remember import EVERYTHING
from reshelve.evaluation.slices import Familiarity, enough, labels, masks, tier
from reshelve.examples.catalogue import Catalogue
from reshelve.examples.event_counts import EventCounts
from reshelve.examples.formats import EVENTS, HoldoutQuery, write_rows

NOW = date(2011, 8, 30)
ITEMS = ["lamp", "cup", "tea", "bag"]


@pytest.fixture
def past(tmp_path: Path) -> EventCounts:
    def event(days_ago: int, item: str, query: str | None) -> dict:
        at = datetime(2011, 8, 30) - timedelta(days=days_ago)
        return {"event_time": at, "event_type": "click", "user_id": None, "session_id": "s", "query": query,
                "item_id": item}  # fmt: skip

    events = [
        *[event(20, "lamp", "Red  Lamp")] * 5,  # 5 of 10: head, and nothing is more frequent
        *[event(9, "cup", "cup")] * 3,  # 5/10 before it: torso
        event(8, "tea", "green tea"),  # 8/10 before it: tail
        event(3, "bag", None),  # tail too (equal, and later in the alphabet for items: bag before tea)
        event(-1, "bag", "bag"),  # of the holdout: not known
    ]
    write_rows(tmp_path / "events.parquet", EVENTS, sorted(events, key=lambda row: row["event_time"]))
    catalogue = Catalogue(ITEMS, ITEMS, [1] * 4, [1] * 4)
    return EventCounts(
        tmp_path / "events.parquet", catalogue, {"click": 1.0}, NOW, tmp_path / "spill", EVERYTHING
    )


def search(text: str, chosen: str) -> HoldoutQuery:
    return HoldoutQuery("q", text, [chosen], 1.0, "c")


def test_what_the_past_knew(past):
    assert past.more_frequent("item_id") == pytest.approx({"lamp": 0, "cup": 0.5, "bag": 0.8, "tea": 0.9})
    assert past.more_frequent("norm", ["red lamp", "green tea", "bag"]) == pytest.approx(
        {"red lamp": 0, "green tea": 8 / 9}
    )
    assert past.known_before(7) == {"lamp", "cup", "tea"}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        pytest.param(search("RED lamp", "lamp"), {"query/head", "query/seen", "item/head"}, id="head"),
        pytest.param(search("cup", "cup"), {"query/torso", "query/seen", "item/torso"}, id="torso"),
        pytest.param(search("green tea", "bag"), {"query/tail", "query/seen", "item/tail", "item/new"}, id="new-item"),
        pytest.param(search("bag", "hat"), {"query/unseen", "item/tail", "item/new"}, id="never-seen"),
    ],
)  # fmt: skip
def test_the_slices_of_a_search(past, query, expected):
    assert labels(query, "pair", Familiarity.of(past, [query], "pair")) == expected


def test_the_newest_item_of_a_history_stands_for_its_query(past):
    def asked(*history: str) -> set[str]:
        query = HoldoutQuery("q", "text", ["tea"], 1.0, "c", history_items=list(history))
        found = labels(query, "next_item", Familiarity.of(past, [query], "next_item"))
        return {name for name in found if name.startswith("query")}

    assert asked("cup", "lamp") == {"query/torso", "query/seen"}
    assert asked("hat", "lamp") == {"query/unseen"}
    assert asked() == {"query/unseen"}


def test_categories_and_segments_are_slices():
    known = Familiarity({}, {}, ITEMS, {"lamp": "light"})
    query = HoldoutQuery("q", "bright", ["lamp", "cup"], 1.0, "c", segment="France")
    assert {"category/light", "segment/France"} == {
        name for name in labels(query, "pair", known) if name.startswith(("category", "segment"))
    }


def test_only_the_commonest_names_of_a_shop_become_slices():
    labelled = [{f"category/{place}", "query/seen"} for place in range(30) for _ in range(place + 1)]
    assert list(masks(labelled)) == sorted([*(f"category/{place}" for place in range(10, 30)), "query/seen"])


def test_new_and_rare_items(past):
    known = Familiarity.of(past, [], "next_item")
    assert known.new([*ITEMS, "hat"]) == {"bag", "hat"}
    assert known.rare([*ITEMS, "hat"]) == {"bag", "tea", "hat"}


@given(st.lists(st.sets(st.sampled_from(["query/head", "item/new", "category/shoes"])), max_size=12))
def test_a_mask_has_every_question_of_its_label(labelled):
    found = masks(labelled)
    assert list(found) == sorted(set().union(*labelled))
    for name, mask in found.items():
        assert mask.tolist() == [name in each for each in labelled]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30))
def test_head_torso_and_tail_are_in_the_order_of_frequency(counts):
    counts, total = sorted(counts, reverse=True), sum(counts)
    tiers = [tier(sum(counts[:place]) / total) for place in range(len(counts))]
    order = ["head", "torso", "tail"]
    assert tiers[0] == "head"
    assert tiers == sorted(tiers, key=order.index)
    # Head carries a third of the weight or more: the item that crosses the line is in it.
    assert sum(count for count, name in zip(counts, tiers, strict=True) if name == "head") >= total / 3


def test_few_questions_or_few_clusters_are_not_enough():
    clusters = np.array([str(number % 20) for number in range(40)], dtype=object)
    everything = np.ones(40, dtype=bool)
    assert enough(everything, clusters, 40)
    assert not enough(everything, clusters, 41)
    nine_baskets = np.array([int(name) < 9 for name in clusters])
    assert nine_baskets.sum() == 18
    assert not enough(nine_baskets, clusters, 10)
