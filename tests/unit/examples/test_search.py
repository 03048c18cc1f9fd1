"""Searches as questions over the whole catalogue."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Any

import pytest

from reshelve.examples.build import build_examples
from reshelve.examples.catalogue import Catalogue
from reshelve.examples.formats import read_holdout, read_rows
from reshelve.examples.tokens import load_tokenizer


def choice(day, minute: int, query: str | None, item: str, kind: str = "click") -> dict[str, Any]:
    at = datetime.combine(day, datetime.min.time()) + timedelta(minutes=minute)
    return {"event_id": f"{day}-{minute}-{item}-{kind}", "event_time": at, "event_type": kind, "session_id": str(minute),
            "query": query, "item_id": item, "item_title": f"the {item}"}  # fmt: skip


def read(run, part: str) -> list[tuple[str, str, float]]:
    """(text, chosen item, weight) of each row, in file order."""
    directory = run.stage("examples").directory
    items = Catalogue.read(directory / "catalogue.parquet").items
    tokenizer = load_tokenizer(directory / "tokenizer.json", run.ranker.model.max_length)
    found = []
    for row in read_rows(directory / f"{part}.parquet"):
        (target,) = row["targets"]
        found.append((tokenizer.decode(row["input_ids"]), items[target], row["weight"]))
    return found


def test_a_search_is_what_was_chosen_under_it(shop, day_of):
    shop.write(day_of(0), [
        choice(day_of(0), 1, "Red  Lamp", "lamp"),
        choice(day_of(0), 2, " red lamp", "lamp", "purchase"),
        choice(day_of(0), 3, "red lamp", "cup"),
        choice(day_of(0), 4, None, "lamp"),
        choice(day_of(0), 5, "   ", "lamp"),
        choice(day_of(0), 6, "a thing", "gone"),
    ])  # fmt: skip
    for number in (5, 6):  # three days of catalogue: `gone` went before them
        rows = [choice(day_of(number), 1, f"cup {number}", "cup"), choice(day_of(number), 2, None, "lamp")]
        shop.write(day_of(number), rows)
    shop.write(day_of(7), [choice(day_of(7), 1, "cup", "cup"), choice(day_of(7), 2, "new", "of today")])
    run = shop.run("search", day_of(7), catalogue_days=3)
    build_examples(run)
    # The newest first; a click weighs 1 and a purchase 2.
    assert read(run, "train") == [
        ("cup 5", "cup", 1.0),
        ("red lamp", "cup", 1.0),
        ("red lamp", "lamp", math.log2(1 + 3)),
    ]
    assert read(run, "validation") == [("cup 6", "cup", 1.0)]
    holdout = read_holdout(run.stage("examples").directory / "holdout.parquet")
    assert {(query.text, *query.relevant): query.candidates for query in holdout} == {
        ("cup", "cup"): [],
        ("new", "of today"): [],  # an honest miss, not left out
    }


def test_the_newest_choices_are_kept(shop, day_of):
    for number in range(3):
        rows = [choice(day_of(number), minute, f"lamp {minute}", "lamp") for minute in range(130)]
        shop.write(day_of(number), rows)
    run = shop.run("search", day_of(2))
    run = type(run)(
        run.ranker.with_values({"examples.max_examples": 100}), run.partition, run.store, run.work
    )
    result = build_examples(run)
    assert (result["train"], result["validation"]) == (100, 25)
    assert [text for text, _, _ in read(run, "train")] == [f"lamp {minute}" for minute in range(129, 29, -1)]


@pytest.mark.parametrize("listed", [True, False])
def test_what_nobody_chose_yet_can_be_found_if_it_is_listed(trading_shop, day_of, listed):
    if listed:
        trading_shop.products({"unsold": "an unsold lamp"})
    run = trading_shop.run("search", day_of(5))
    build_examples(run)
    items = Catalogue.read(run.stage("examples").directory / "catalogue.parquet").items
    assert ("unsold" in items) is listed


def test_a_held_out_question_is_of_one_segment(shop, day_of):
    for number in range(3):
        rows = [
            {**choice(day_of(number), minute, "red lamp", "lamp"), "segment": segment}
            for minute, segment in enumerate(("France", "France", "Spain", None))
        ]
        shop.write(day_of(number), rows)
    run = shop.run("search", day_of(2))
    build_examples(run)
    holdout = read_holdout(run.stage("examples").directory / "holdout.parquet")
    assert {query.segment: query.weight for query in holdout} == {"France": 2.0, "Spain": 1.0, None: 1.0}
    assert len({query.query_id for query in holdout}) == 3
    assert len({query.cluster for query in holdout}) == 1
