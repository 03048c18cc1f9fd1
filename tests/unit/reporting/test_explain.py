"""Attributions of real models: they add up, name the text's own words, and show nobody's own query."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

from reshelve.config.remember import Remember
from reshelve.examples.formats import EVENTS, write_rows
from reshelve.lineage.run import Run
from reshelve.reporting.explain import explain
from reshelve.training.model import RankerModel

DAY = date(2011, 8, 30)
RULE = Remember()


@pytest.fixture
def explained_run(store, tmp_path: Path, tiny_base: Path, make_ranker, write_examples):
    """`explained_run(kind, customers=…, towers=…)`: a model that was never trained explains as well as any."""

    def make(
        kind: str, *, customers: int = RULE.customers, days: int = RULE.days, towers: bool = False
    ) -> Run:
        ranker = make_ranker(kind, **({"model.towers": True} if towers else {}))
        run = Run(ranker, DAY, store, tmp_path / f"work-{kind}-{customers}-{days}-{towers}")
        examples, train = (run.stage(name).directory for name in ("examples", "train"))
        write_examples(examples, "pair" if kind == "pair" else "next_item")
        tokenizer = Tokenizer.from_file(str(tiny_base / "tokenizer.json"))
        event = {
            "event_type": "click",
            "user_id": None,
            "item_id": "red",
        }
        rows = []
        for ids in pq.read_table(examples / "validation.parquet", columns=["input_ids"])[
            "input_ids"
        ].to_pylist():
            words = [tokenizer.id_to_token(token) for token in ids]
            query = " ".join(words[1 : words.index("[SEP]")])
            rows += [
                {
                    **event,
                    "event_time": datetime(2011, 8, 1 + n % days),
                    "session_id": f"s{n}",
                    "query": query,
                }
                for n in range(customers)
            ]
        write_rows(examples / "events.parquet", EVENTS, rows)
        titles = pq.read_table(examples / "catalogue.parquet")["title"].to_pylist()
        model = RankerModel.initialise(
            tiny_base, kind=kind, pooling="mean", max_length=16, towers=towers,
            titles=titles if kind != "pair" else None, events=[5] * len(titles),
        )  # fmt: skip
        model.save(train)
        (train / "tokenizer.json").write_bytes((tiny_base / "tokenizer.json").read_bytes())
        for name in ("examples", "train"):
            run.stage(name).commit({})
        return run

    return make


@pytest.mark.parametrize(
    ("kind", "towers"),
    [("next_item", False), ("search", False), ("pair", False), ("pair", True)],
    ids=["next_item", "search", "pair", "pair apart"],
)
def test_what_words_add_makes_up_the_score(explained_run, kind: str, towers: bool) -> None:
    run = explained_run(kind, towers=towers)
    found = explain(run)
    assert {each.came_true for each in found} == {True, False}
    vocabulary = Tokenizer.from_file(str(run.stage("train").directory / "tokenizer.json")).get_vocab()
    for each in found:
        assert 0 < each.chance < 1
        assert {word.text for word in each.words} <= set(vocabulary) - {"[CLS]", "[SEP]", "[PAD]"}
        assert {word.part for word in each.words} == ({0, 1} if kind == "pair" else {0})
        assert max(abs(word.adds) for word in each.words) > 0
        assert each.left_over < 0.02 + 0.05 * sum(abs(word.adds) for word in each.words)
    assert explain(run) == found, "the same night explains itself the same way"


@pytest.mark.parametrize("kind", ["search", "pair"])
def test_a_query_that_few_have_asked_is_not_shown(explained_run, kind: str) -> None:
    assert explain(explained_run(kind, customers=RULE.customers - 1)) == []
    assert explain(explained_run(kind, days=RULE.days - 1)) == []


def test_a_night_whose_model_is_not_kept_is_not_explained(explained_run) -> None:
    run = explained_run("next_item")
    (run.stage("train").directory / "model.json").unlink()
    assert explain(run) == []
