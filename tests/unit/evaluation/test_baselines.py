from __future__ import annotations

from datetime import date, datetime, timedelta

import pytest

from reshelve.clickstream.remember import EVERYTHING
from reshelve.evaluation.baseline_ranking import Baselines
from reshelve.examples.catalogue import Catalogue
from reshelve.examples.event_counts import EventCounts
from reshelve.examples.formats import EVENTS, HoldoutQuery, write_rows

NOW = date(2011, 8, 30)
CATALOGUE = Catalogue(
    ["lamp", "cup", "tea", "bag"],
    ["red lamp", "blue cup", "green tea", "red bag"],
    [4, 3, 2, 1],
    [4, 3, 2, 1],
)


@pytest.fixture
def past(tmp_path) -> EventCounts:
    def event(days_ago: int, basket: str, item: str, query: str | None = None, kind: str = "click") -> dict:
        at = datetime(2011, 8, 30) - timedelta(days=days_ago)
        return {"event_time": at, "event_type": kind, "user_id": None, "session_id": basket, "query": query,
                "item_id": item}  # fmt: skip

    events = [
        *(event(20, f"old{n}", "bag") for n in range(9)),  # popular once
        event(9, "one", "lamp"), event(9, "one", "tea"),
        event(8, "two", "lamp"), event(8, "two", "tea"),
        event(3, "three", "cup", "Red\u00a0 Lamp\t"), event(2, "four", "cup", kind="purchase"), event(2, "five", "tea"),
        event(-1, "tomorrow", "bag", "red lamp"), event(-1, "tomorrow", "lamp"),
    ]  # fmt: skip
    write_rows(tmp_path / "events.parquet", EVENTS, sorted(events, key=lambda row: row["event_time"]))
    return EventCounts(
        tmp_path / "events.parquet",
        CATALOGUE,
        {"click": 1.0, "purchase": 2.5},
        NOW,
        tmp_path / "spill",
        EVERYTHING,
    )


def asked(text: str, history: list[str] | None = None, candidates: list[str] | None = None) -> HoldoutQuery:
    return HoldoutQuery("q", text, ["tea"], 1.0, "c", history or [], candidates or [])


def test_popularity_is_the_weight_of_the_last_seven_days_before_the_holdout(past):
    assert past.popularity().tolist() == [0, 3.5, 1, 0]
    ranked = Baselines(past, "next_item").rank("popularity", asked("x"), 4)
    assert ranked == ["cup", "tea", "bag", "lamp"]  # ties by item id


def test_bm25_puts_titles_that_share_words_first_then_what_is_popular(past):
    assert Baselines(past, "pair").rank("bm25", asked("red lamp"), 4) == ["lamp", "bag", "cup", "tea"]


@pytest.mark.parametrize("name", ["popularity", "bm25", "cooccurrence"])
def test_no_baseline_offers_what_is_held_where_the_model_may_not(past, name):
    query = asked("red lamp", ["lamp", "cup", "unknown"])
    assert set(Baselines(past, "next_item").rank(name, query, 4)) == {"lamp", "cup", "tea", "bag"}
    ranked = Baselines(past, "next_item", repeat=False).rank(name, query, 4)
    assert set(ranked) == {"tea", "bag"} and len(ranked) == 2


def test_a_basket_is_followed_by_what_was_bought_with_it(past):
    baselines = Baselines(past, "next_item")
    assert baselines.rank("cooccurrence", asked("red lamp", ["lamp", "unknown"]), 4) == [
        "tea",
        "cup",
        "bag",
        "lamp",
    ]
    assert baselines.rank("cooccurrence", asked("", []), 2) == ["cup", "tea"]


def test_a_query_is_followed_by_what_was_chosen_under_it(past):
    assert Baselines(past, "pair").rank("cooccurrence", asked("RED lamp"), 3) == ["cup", "lamp", "bag"]


def test_the_order_of_a_shortlist_never_helps(past):
    baselines = Baselines(past, "pair")
    for candidates in (["lamp", "bag"], ["bag", "lamp"]):
        assert baselines.rank("popularity", asked("x", candidates=candidates), 5) == ["bag", "lamp"]
