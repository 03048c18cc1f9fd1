from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime

import pyarrow.parquet as pq
import pytest

from reshelve.errors import ConfigurationError, DataError
from reshelve.examples.build import build_examples
from reshelve.examples.catalogue import Catalogue
from reshelve.examples.formats import read_holdout, read_rows
from reshelve.examples.tokens import load_tokenizer
from reshelve.pipeline.reuse import do_stage


def at(day) -> datetime:
    return datetime.combine(day, datetime.min.time())


def sale(day, basket: str, item: str, **columns) -> dict:
    return {"event_id": f"{day}{basket}{item}", "event_time": at(day), "event_type": "purchase",
            "session_id": basket, "item_id": item, **columns}  # fmt: skip


def test_lines_of_one_instant_keep_the_order_of_the_partition(shop, day_of):
    for number in range(3):
        rows = [
            sale(day_of(number), f"b{number}", item, item_title=f"the {item}")
            for item in ("z", "m", "a", "q")
        ]
        shop.write(day_of(number), rows)
    run = shop.run("next_item", day_of(2))
    result = build_examples(run)
    directory = run.stage("examples").directory
    holdout = read_holdout(directory / "holdout.parquet")
    assert {tuple(query.history_items): query.relevant for query in holdout} == {
        ("z",): ["m"],
        ("m", "z"): ["a"],
        ("a", "m", "z"): ["q"],
    }
    items = Catalogue.read(directory / "catalogue.parquet").items
    tokenizer = load_tokenizer(directory / "tokenizer.json", run.ranker.model.max_length)
    row = next(row for row in read_rows(directory / "train.parquet") if len(row["targets"]) == 2)
    assert tokenizer.decode(row["input_ids"]) == "the m ; the z"
    assert [items[target] for target in row["targets"]] == ["a", "q"]
    assert (result["train"], result["validation"], result["holdout"], result["items"]) == (3, 3, 3, 4)
    assert result["rows_read"] == 12
    assert result["holdout_partitions"] == ["2011-08-03"]


def test_the_catalogue_is_what_sold_lately_by_its_usual_title(shop, day_of):
    shop.write(day_of(0), [sale(day_of(0), "b", "gone"), sale(day_of(0), "b", "lamp", item_title="a lamp")])
    for number in (5, 6):
        rows = [
            sale(day_of(number), "b", "lamp", item_title="LAMP, RED"),
            sale(day_of(number), "b", "nameless"),
        ]
        returned = {**sale(day_of(number), "r", "back"), "event_type": "return"}
        shop.write(day_of(number), [*rows, returned])
    shop.write(day_of(7), [sale(day_of(7), "b", "lamp"), sale(day_of(7), "b", "tomorrow")])
    run = shop.run("next_item", day_of(7), catalogue_days=4)
    build_examples(run)
    catalogue = Catalogue.read(run.stage("examples").directory / "catalogue.parquet")
    assert list(zip(catalogue.items, catalogue.titles, catalogue.events, strict=True)) == [
        ("lamp", "LAMP, RED", 2),
        ("nameless", "nameless", 2),
    ]


def test_a_pair_is_compared_with_items_nobody_chose_for_the_query(trading_shop, day_of):
    trading_shop.products({"i3": "a listed title", "unsold": None})
    run = trading_shop.run("pair", day_of(5))
    result = build_examples(run)
    directory = run.stage("examples").directory
    catalogue = Catalogue.read(directory / "catalogue.parquet")
    assert catalogue.titles[catalogue.index["i3"]] == "a listed title"
    assert catalogue.titles[catalogue.index["unsold"]] == "unsold"
    rows = list(read_rows(directory / "train.parquet"))
    assert result["train"] == len(rows)
    assert {row["label"] for row in rows} == {0.0, 1.0}
    by_group: dict[int, dict[tuple, float]] = {}
    for row in rows:
        group = by_group.setdefault(row["group"], {})
        assert tuple(row["input_ids"]) not in group, "an item is compared once per query"
        group[tuple(row["input_ids"])] = row["label"]
        assert len(row["input_ids"]) == len(row["token_type_ids"])
    assert len(by_group) == 3
    for query in read_holdout(directory / "holdout.parquet"):
        assert len(query.candidates) == len(set(query.candidates)) > 0
        assert query.weight >= 1


@pytest.mark.parametrize("kind", ["pair", "next_item", "search"])
def test_only_training_texts_are_misspelt(trading_shop, day_of, kind):
    found = {}
    for share in (0.0, 1.0):
        run = trading_shop.run(kind, day_of(5))
        run = replace(run, ranker=run.ranker.with_values({"examples.misspell": share}))
        build_examples(run)
        directory = run.stage("examples").directory
        found[share] = {
            part: list(read_rows(directory / f"{part}.parquet"))
            for part in ("train", "validation", "holdout")
        }
    assert found[0.0]["validation"] == found[1.0]["validation"]
    assert found[0.0]["holdout"] == found[1.0]["holdout"]
    plain, misspelt = found[0.0]["train"], found[1.0]["train"]
    assert len(plain) == len(misspelt)
    different = [one for one, other in zip(plain, misspelt, strict=True) if one != other]
    assert len(different) > 0.9 * len(plain)
    for one, other in zip(plain, misspelt, strict=True):  # and nothing but the text
        assert {k: v for k, v in one.items() if "ids" not in k} == {
            k: v for k, v in other.items() if "ids" not in k
        }


def test_data_without_questions_says_what_was_expected(shop, day_of):
    for number in range(3):
        shop.write(day_of(number), [sale(day_of(number), f"{number}-{n}", "lamp") for n in range(3)])
    with pytest.raises(DataError, match=r"gave no train examples") as error:
        build_examples(shop.run("next_item", day_of(2)))
    assert "baskets or customers with two items" in error.value.detail


def test_a_base_that_is_fetched_and_cannot_be_packaged_is_refused_before_any_event_is_read(
    trading_shop, day_of, small_base
):
    shop = trading_shop
    shop.store.upload_directory(small_base, "bases/odd")
    config = json.loads((small_base / "config.json").read_text())
    shop.store.put("bases/odd/config.json", json.dumps({**config, "hidden_act": "silu"}).encode())
    shop.base = shop.store.uri("bases/odd")
    run = shop.run("pair", day_of(5))
    with pytest.raises(
        ConfigurationError, match=r"ranker shelf: model\.base: .*hidden_act silu, expected gelu"
    ):
        build_examples(run)
    assert not any(run.stage("examples").directory.iterdir())


def test_an_item_has_the_category_it_mostly_had_and_a_question_the_segment_of_who_asked(shop, day_of):
    def line(number: int, item: str, category: str | None, segment: str | None) -> dict:
        return sale(day_of(number), f"b{number}{segment}", item, category=category, segment=segment)

    for number, category in enumerate(("toys", "lamps", "lamps", "tomorrow's")):
        rows = [line(number, item, category, "France") for item in ("z", "m")]
        shop.write(day_of(number), [*rows, line(number, "z", None, None), line(number, "q", " ", None)])
    run = shop.run("next_item", day_of(3))
    build_examples(run)
    directory = run.stage("examples").directory
    assert Catalogue.read(directory / "catalogue.parquet").category == {"z": "lamps", "m": "lamps"}
    holdout = read_holdout(directory / "holdout.parquet")
    assert {(query.relevant[0], query.segment) for query in holdout} == {("m", "France"), ("q", None)}


def test_blanks_that_were_validated_before_belong_to_no_basket(shop, day_of):
    """One visit of all who have none would be a basket of everything."""
    for number in range(3):
        rows = [sale(day_of(number), "", item, user_id=" ") for item in ("z", "m")]
        rows += [sale(day_of(number), f"b{number}", item) for item in ("a", "q", " ")]
        shop.write(day_of(number), rows)
    run = shop.run("next_item", day_of(2))
    build_examples(run)
    holdout = read_holdout(run.stage("examples").directory / "holdout.parquet")
    assert [(tuple(query.history_items), query.relevant) for query in holdout] == [(("a",), ["q"])]


def test_what_was_validated_before_it_was_masked_is_masked_when_it_is_read(trading_shop, day_of):
    rows = trading_shop.days[day_of(1)]
    trading_shop.write(day_of(1), [{**row, "query": "i1 for ann@shop.example"} for row in rows])
    run = trading_shop.run("search", day_of(5))
    build_examples(run)
    queries = pq.read_table(run.stage("examples").directory / "events.parquet")["query"].to_pylist()
    assert "i1 for <e-mail>" in queries and not [query for query in queries if query and "@" in query]


def test_another_run_of_the_day_takes_examples_over_until_what_they_are_made_of_changes(trading_shop, day_of):
    first = trading_shop.run("next_item", day_of(5))
    second, third = (
        replace(first, ranker=first.ranker.with_values({"owner": owner}))
        for owner in ("others", "more others")
    )
    made = do_stage(first, "examples", build_examples)
    assert do_stage(second, "examples", build_examples) == {**made, "reused": True}
    assert (second.stage("examples").files() / "train.parquet").is_file()
    trading_shop.products({"i3": "another title"})
    again = do_stage(third, "examples", build_examples)
    assert (again["reused"], again["run"]) == (False, third.id)
