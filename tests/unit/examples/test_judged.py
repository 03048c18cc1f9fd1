"""Judgements: grades become labels, and queries, not days, are held out."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from reshelve.errors import ConfigurationError
from reshelve.evaluation.comparison import HeldOut
from reshelve.evaluation.metrics import Metric
from reshelve.examples.build import build_examples
from reshelve.examples.formats import HoldoutQuery, read_holdout

from .conftest import Shop, day

QUERIES = [f"query {chr(97 + number % 26)}{number}" for number in range(60)]


def judged(query: str, item: str, grade: float, number: int) -> dict[str, Any]:
    return {
        "event_id": f"{query}-{item}-{number}", "event_time": datetime.combine(day(0), datetime.min.time()),
        "event_type": "judgement", "session_id": query, "query": query, "item_id": item, "item_title": f"title {item}",
        "grade": grade,
    }  # fmt: skip


@pytest.fixture
def judging(shop: Shop) -> Shop:
    rows = [judged(query, f"i{place}", 1 + place % 3, 0) for query in QUERIES for place in range(4)]
    shop.write(day(0), [*rows, judged(QUERIES[0], "i1", 3, 1)])
    return shop


def built(shop: Shop, **values: Any) -> dict[str, Any]:
    run = shop.run(
        "pair",
        day(0),
        {"labels": "judgements"},
        events={"judgement": 1.0},
        split="query",
        window_days=2,
        **values,
    )
    ranker = run.ranker.with_values({"gates.metric": "ndcg@10"})
    run = type(run)(ranker, run.partition, run.store, run.work)
    result = run.stage("examples").commit(build_examples(run))
    directory = run.stage("examples").directory
    tables = {
        name: pq.read_table(directory / f"{name}.parquet").to_pylist() for name in ("train", "validation")
    }
    return {"result": result, "holdout": read_holdout(directory / "holdout.parquet"), **tables}


def test_every_query_is_held_out_once_and_never_learned_from(judging: Shop) -> None:
    held: list[str] = []
    for fold in range(5):
        found = built(judging, fold=fold)
        asked = [query.text for query in found["holdout"]]
        assert len(found["train"]) + len(found["validation"]) == 4 * (len(QUERIES) - len(asked))
        assert found["result"]["fold"] == fold and found["validation"]
        held += asked
    assert sorted(held) == sorted(QUERIES)


def test_labels_are_places_between_the_grades_and_gains_are_grades_above_the_lowest(judging: Shop) -> None:
    everything = [built(judging, fold=fold) for fold in range(5)]
    labels = {row["label"] for found in everything for row in found["train"]}
    # Graded 2 and 3 by two people: the mean.
    assert labels == {0.0, 0.5, 1.0, 0.75}
    [question] = [q for found in everything for q in found["holdout"] if q.text == QUERIES[0]]
    assert sorted(question.candidates) == ["i0", "i1", "i2", "i3"]
    assert question.gain == {"i1": 1.5, "i2": 2.0}, "the lowest grade is no gain"


def test_questions_of_fewer_than_three_items_weigh_nothing() -> None:
    def question(name: str, candidates: list[str]) -> HoldoutQuery:
        return HoldoutQuery(name, name, ["a"], 1.0, name, candidates=candidates, gains=[2.0])

    queries = [question("two", ["a", "b"]), question("three", ["a", "b", "c"])]
    held = HeldOut(queries, [Metric("ndcg", 10)], seed=1)
    values = held.values([["a", "b"], ["b", "a", "c"]])
    assert held.weights.tolist() == [0, 1]
    assert held.mean(values) == pytest.approx((3 / 1.584962500721156) / 3)


def test_judgements_and_other_events_do_not_mix(shop: Shop) -> None:
    for events in ({"judgement": 1.0, "click": 1.0}, {"click": 1.0}):
        with pytest.raises(ValidationError, match=r"judgements go with data\.events"):
            shop.run("pair", day(0), {"labels": "judgements"}, events=events)
    with pytest.raises(ConfigurationError, match=r"data\.fold: expected less than data\.folds"):
        shop.run("pair", day(0)).ranker.with_values({"data.split": "query", "data.fold": 5})
