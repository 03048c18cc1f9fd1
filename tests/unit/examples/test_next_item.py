from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from itertools import groupby
from random import Random
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reshelve.clickstream.database import connect
from reshelve.clickstream.remember import EVERYTHING
from reshelve.examples.catalogue import Catalogue
from reshelve.examples.event_counts import EventCounts
from reshelve.examples.formats import EVENTS, write_rows
from reshelve.examples.sampling import stable_hash
from reshelve.kinds.next_item import baskets
from reshelve.kinds.next_item.baskets import (
    QUESTIONS_PER_BASKET,
    BasketQuestion,
    Line,
    ask,
    collect_questions,
)
from reshelve.kinds.next_item.evaluation import Together

START = datetime(2011, 8, 1, 9)


def bought(*events: tuple[str, str], part: str = "train", day: date = START.date()) -> list[Line]:
    """Lines of one customer: (basket, item), all at one instant, as the lines of an invoice are."""
    return [Line("ann", day, basket, part, START, item, f"title {item}", 1.0) for basket, item in events]


def test_history_is_what_was_bought_before_newest_first():
    lines = bought(("old", "a"), ("old", "b"), ("new", "c"), ("new", "d"))
    questions = {question.rest[0]: question for question in ask(lines, history_items=8, seed=1)}
    assert questions["d"].text == "title c ; title b ; title a"
    assert questions["d"].rest == ["d"]
    assert questions["c"].history == ["b", "a"]
    assert questions["c"].rest == ["c", "d"]
    assert "a" not in questions  # nothing was known before the first


def test_what_is_held_is_asked_for_only_where_it_may_come_again():
    lines = bought(("old", "a"), ("old", "b"), ("new", "b"), ("new", "c"), ("new", "a"), part="holdout")
    again = {question.id: question.rest for question in ask(lines, 8, 1)}
    without = {question.id: question for question in ask(lines, 8, 1, repeat=False)}
    assert ["b", "c", "a"] in again.values() and ["a"] in again.values()
    assert [question.rest for question in without.values()] == [["b"], ["c"], ["c"]]
    for question in without.values():
        assert not set(question.history) & set(question.rest)
        assert question.weights == [1.0] and question.held_out().relevant == question.rest


def test_a_held_out_question_asks_for_the_next_item_alone():
    lines = bought(("one", "a"), ("one", "b"), ("one", "c"), part="holdout")
    held = [question.held_out() for question in ask(lines, 8, 1)]
    assert [(query.history_items, query.relevant) for query in held] == [(["a"], ["b"]), (["b", "a"], ["c"])]


def test_an_item_taken_twice_counts_once_with_its_greatest_weight():
    lines = bought(("one", "a"), ("one", "b"), ("one", "b"), ("one", "c"))
    lines[2] = lines[2]._replace(weight=5.0)
    question = next(question for question in ask(lines, 8, 1) if question.rest[0] == "b")
    assert (question.rest, question.weights) == (["b", "c"], [5.0, 1.0])


def test_a_basket_over_midnight_takes_no_target_from_the_next_partition():
    lines = bought(("one", "a"), ("one", "b"))
    lines += bought(("one", "c"), ("one", "d"), part="holdout", day=START.date() + timedelta(days=1))
    questions = list(ask(lines, 8, 1))
    assert [question.rest for question in questions if question.part == "train"] == [["b"]]
    assert questions[-1].history == ["c", "b", "a"]


def test_a_long_basket_asks_no_more_than_a_short_one():
    lines = bought(*(("one", str(number)) for number in range(300)))
    assert len(list(ask(lines, 8, 1))) == QUESTIONS_PER_BASKET["train"]


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from("abcdef")), max_size=30), st.integers(0, 5))
def test_no_question_sees_its_own_future(events, seed):
    lines = bought(*events)
    for question in ask(lines, history_items=4, seed=seed):
        place = int(question.id.rpartition("-")[2])
        behind = [line.item for line in lines[:place]]
        assert 1 <= len(question.history) <= 4
        assert question.history == list(dict.fromkeys(reversed(behind)))[:4]
        basket = lines[place].basket
        ahead = dict.fromkeys(line.item for line in lines[place:] if line.basket == basket)
        already = {line.item for line in lines[:place] if line.basket == basket}
        assert question.rest == [item for item in ahead if item not in already]
        # The same customer, cut off at this place, was asked after the same history.
        assert question.text == " ; ".join(f"title {item}" for item in question.history)


ITEMS = [f"i{number}" for number in range(12)]


def window(customers: int = 200, days: int = 20) -> tuple[duckdb.DuckDBPyConnection, list[Line]]:
    """Customers of one to twelve events each, all in the order in which they are asked: in the database, and as lines."""
    random, rows = Random(1), []
    for customer in range(customers):
        for _ in range(random.choice([1, 1, 2, 4, 12])):
            at = START + timedelta(minutes=random.randrange(days * 1440 - 600))
            day = (at - START).days
            part = "train" if day < days - 4 else "validation" if day < days - 2 else "holdout"
            known = random.random() < 0.7
            rows.append({
                "user_id": f"c{customer}" if known else None, "session_id": None if known else f"v{customer}",
                "event_time": at, "day": at.date(), "line": len(rows), "part": part, "item_id": random.choice(ITEMS),
                "own_title": None, "weight": 1.0, "segment": None,
            })  # fmt: skip
    schema = pa.schema([
        *((name, pa.string()) for name in ("user_id", "session_id", "part", "item_id", "own_title", "segment")),
        ("event_time", pa.timestamp("us")), ("day", pa.date32()), ("line", pa.int64()), ("weight", pa.float64()),
    ])  # fmt: skip
    db = connect()
    db.register("given", pa.Table.from_pylist(rows, schema=schema))
    db.execute("CREATE TABLE events AS FROM given")
    db.execute(
        "CREATE TABLE products AS SELECT item_id, 'title ' || item_id AS title FROM (SELECT DISTINCT item_id FROM given)"
    )
    lines = [
        Line(owner, row["day"], row["session_id"] or row["user_id"], row["part"], row["event_time"], row["item_id"],
             f"title {row['item_id']}", 1.0)
        for row in rows if (owner := "u" + row["user_id"] if row["user_id"] else "s" + row["session_id"])
    ]  # fmt: skip
    return db, sorted(lines, key=lambda line: (line.owner, line.time))


def asked_of_all(
    lines: list[Line], known: list[str], limits: dict[str, int]
) -> dict[str, list[BasketQuestion]]:
    """Every customer asked, and then chosen from."""
    found: dict[str, list[BasketQuestion]] = {part: [] for part in limits}
    for _, owned in groupby(lines, key=lambda line: line.owner):
        for question in ask(list(owned), 8, 3):
            if question.part == "holdout" or set(known) & set(question.rest):
                found[question.part].append(question)
    for part, questions in found.items():
        questions.sort(
            key=lambda each: (each.time if part == "train" else stable_hash(3, each.id), each.id),
            reverse=True,
        )
        found[part] = sorted(questions[: limits[part]], key=lambda each: (each.time, each.id))
    return found


@pytest.mark.parametrize(
    ("known", "limits", "share"),
    [
        (ITEMS, {"train": 10, "validation": 10, "holdout": 20}, 0.7),
        (ITEMS, {"train": 10, "validation": 0, "holdout": 0}, 0.45),
        (ITEMS, {"train": 0, "validation": 0, "holdout": 20}, 0.5),
        (ITEMS, {"train": 5000, "validation": 500, "holdout": 500}, 0.9),
        (ITEMS[:1], {"train": 40, "validation": 20, "holdout": 20}, 2.0),  # the first look finds too few
    ],
    ids=["all parts", "training alone", "the gate's alone", "all there are", "few are known"],
)
def test_only_who_could_ask_is_read_and_the_questions_are_the_same(
    known: list[str], limits: dict[str, int], share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    db, lines = window()
    read, whole = Counter(), baskets.stream

    def counted(*asked: Any) -> Iterator[Any]:
        for row in whole(*asked):
            read["lines"] += 1
            yield row

    monkeypatch.setattr(baskets, "stream", counted)
    found = collect_questions(db, known=known, history_items=8, seed=3, **limits)
    expected = asked_of_all(lines, known, limits)
    for part in limits:
        assert getattr(found, part) == expected[part], part
    assert found.train or not limits["train"]
    assert read["lines"] <= share * len(lines)


@given(
    st.lists(
        st.tuples(st.sampled_from("uvw"), st.integers(0, 1), st.sampled_from(["i0", "i1", "i2", "gone"])),
        max_size=30,
    )
)
def test_baskets_that_hold_both(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[str, int, str]]
) -> None:
    directory = tmp_path_factory.mktemp("events")
    rows = [
        {
            "event_time": START + timedelta(days=day),
            "event_type": "click",
            "session_id": visit,
            "item_id": item,
        }
        for visit, day, item in events
    ]
    write_rows(directory / "events.parquet", EVENTS, rows)
    catalogue = Catalogue(tuple(ITEMS), tuple(ITEMS), [1] * 12, [1] * 12)
    now = START.date() + timedelta(days=2)
    past = EventCounts(
        directory / "events.parquet", catalogue, {"click": 1.0}, now, directory / "spill", EVERYTHING
    )
    held = {
        (visit, day): {item for v, d, item in events if (v, d) == (visit, day)} for visit, day, _ in events
    }
    expected = np.zeros(12)
    for asked in (0, 1):
        for other in set(range(12)) - {asked}:
            expected[other] += sum({f"i{asked}", f"i{other}"} <= items for items in held.values())
    np.testing.assert_array_equal(Together(past.baskets()).scores([0, 1]), expected)
