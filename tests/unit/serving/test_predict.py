"""Questions that do not fit, and shortlists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reshelve.client.client import RankingClient, ServerAwayError
from reshelve.client.predict import predict, shortlist, unknown_titles
from reshelve.config.ranker import Ranker
from reshelve.errors import ConfigurationError, DataError
from reshelve.kind_registry import kind_of
from reshelve.processes import free_port
from reshelve.protocol.version_items import Item, _parse

ITEMS = [
    Item("a", "red paper lantern", 5),
    Item("b", "blue paper plates", 50),
    Item("c", "garden gnome", 500),
    Item("d", "paper gnome hat", 1),
]


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ({}, "recommend needs --history"),
        ({"history": "  "}, "recommend needs --history"),
        ({"history": "x", "query": "y"}, "recommend ranks its whole catalogue"),
    ],
    ids=["nothing", "blank", "both"],
)
def test_a_question_that_does_not_fit_the_ranker_says_what_does(
    ranker: Ranker, question: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ConfigurationError, match=expected):
        predict(ranker, **question)


@pytest.mark.parametrize(
    ("question", "expected"),
    [({}, "needs --query"), ({"query": "x", "history": "y"}, "ranks items for a query")],
    ids=["nothing", "both"],
)
@pytest.mark.parametrize("kind", ["pair", "search"])
def test_a_ranker_of_queries_needs_one(
    ranker: Ranker, kind: str, question: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ConfigurationError, match=expected):
        predict(ranker.with_values({"kind": kind}), **question)


def test_a_shortlist_is_what_the_words_say_and_what_is_wanted() -> None:
    assert set(shortlist(ITEMS, "paper")) == {"a", "b", "c", "d"}
    assert shortlist(ITEMS, "blue paper")[0] == "b"


@pytest.mark.parametrize("query", ["zzz", "?!", ""], ids=["unknown word", "no word", "empty"])
def test_without_a_known_word_the_shortlist_is_what_is_wanted(query: str) -> None:
    assert shortlist(ITEMS, query) == ["c", "b", "a", "d"]


def test_titles_of_a_history_that_no_item_has_are_named() -> None:
    catalogue = [*ITEMS, Item("e", "cup ; saucer", 1)]
    titles = kind_of("next_item").requests.titles_in
    assert unknown_titles(catalogue, titles("Garden  Gnome ; red lantern ; D ; cup ; saucer ; cup")) == [
        "red lantern",
        "cup",
    ]
    assert kind_of("search").requests.titles_in("garden gnome") == []


def test_a_probe_asks_for_what_the_version_must_know() -> None:
    assert kind_of("next_item").requests.probe(ITEMS) == {
        "history": ["garden gnome ; blue paper plates ; red paper lantern"]
    }
    assert kind_of("search").requests.probe(ITEMS) == {"query": ["garden gnome"]}
    assert kind_of("pair").requests.probe(ITEMS) == {"query": ["garden gnome"], "item": ["c", "b", "a", "d"]}


@pytest.mark.parametrize(
    "body", ["", "{", '{"item": "a"}', "[]"], ids=["empty", "no JSON", "no title", "no object"]
)
def test_a_damaged_catalogue_is_named(body: str) -> None:
    with pytest.raises(DataError, match=r"c\.jsonl"):
        _parse(body.encode(), Path("c.jsonl"))


def test_a_title_may_hold_any_character() -> None:
    line = json.dumps({"item": "a", "title": "line\u2028separator", "events": 1}, ensure_ascii=False)
    assert _parse((line + "\n").encode(), Path("c.jsonl")) == [Item("a", "line\u2028separator", 1)]


def test_a_server_that_is_away_is_named() -> None:
    address = f"127.0.0.1:{free_port()}"
    with RankingClient(address) as client, pytest.raises(ServerAwayError, match=address):
        client.predict("recommend", {"history": ["x"]}, timeout=5)
