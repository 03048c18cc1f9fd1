"""No example, count or shortlist may know its own future."""

from __future__ import annotations

from pathlib import Path

import pytest

from reshelve.examples.build import build_examples
from reshelve.examples.catalogue import Catalogue
from reshelve.examples.formats import read_holdout, read_rows

pytestmark = pytest.mark.slow

FILES = ("catalogue.parquet", "train.parquet", "validation.parquet", "events.parquet")


def built(run) -> Path:
    build_examples(run)
    return run.stage("examples").directory


def bytes_of(directory: Path, names=FILES) -> dict[str, bytes]:
    return {name: (directory / name).read_bytes() for name in names}


@pytest.mark.parametrize("kind", ["next_item", "pair", "search"])
def test_another_holdout_changes_nothing_that_is_learnt_from(trading_shop, day_of, trade_of, kind):
    before = bytes_of(built(trading_shop.run(kind, day_of(5))))
    other = [
        {**row, "item_id": f"new-{row['item_id']}", "item_title": "a title of tomorrow", "query": "red lamp"}
        for row in trade_of(5, seed=99)
    ]
    trading_shop.write(day_of(5), trade_of(5, seed=98) + other)
    assert bytes_of(built(trading_shop.run(kind, day_of(5)))) == before


@pytest.mark.parametrize("kind", ["next_item", "pair", "search"])
def test_another_validation_day_changes_no_training_example(trading_shop, day_of, trade_of, kind):
    def training(directory: Path) -> list[tuple]:
        items = Catalogue.read(directory / "catalogue.parquet").items
        rows = read_rows(directory / "train.parquet")
        return [
            (
                row["input_ids"],
                [items[target] for target in row.get("targets", ())],
                row.get("label"),
                row["weight"],
            )
            for row in rows
        ]

    before = training(built(trading_shop.run(kind, day_of(5))))
    trading_shop.write(day_of(4), trade_of(4, seed=88))
    assert training(built(trading_shop.run(kind, day_of(5)))) == before


def test_the_counts_that_training_starts_from_leave_validation_out(trading_shop, day_of):
    directory = built(trading_shop.run("next_item", day_of(5)))
    catalogue = Catalogue.read(directory / "catalogue.parquet")
    assert sum(catalogue.events_train) == sum(len(trading_shop.days[day_of(n)]) for n in range(4))
    assert sum(catalogue.events) == sum(len(trading_shop.days[day_of(n)]) for n in range(5))


def test_a_shortlist_is_drawn_from_the_past_and_misses_what_is_new(trading_shop, day_of):
    holdout = built(trading_shop.run("pair", day_of(5))) / "holdout.parquet"
    before = {query.text: query.candidates for query in read_holdout(holdout)}
    asked = next(row for row in trading_shop.days[day_of(5)] if row["query"])
    trading_shop.write(day_of(5), [{**asked, "item_id": "released-today", "item_title": asked["query"]}])
    (after,) = read_holdout(built(trading_shop.run("pair", day_of(5))) / "holdout.parquet")
    assert after.candidates == before[after.text]
    assert after.relevant == ["released-today"]  # an honest miss, not left out


def test_equal_inputs_give_equal_bytes(trading_shop, day_of):
    for kind in ("next_item", "pair", "search"):
        first, second = (built(trading_shop.run(kind, day_of(5))) for _ in range(2))
        names = sorted(path.name for path in first.iterdir())
        assert bytes_of(first, names) == bytes_of(second, names)
        assert {"holdout.parquet", "tokenizer.json", "base.json", *FILES} == set(names)
