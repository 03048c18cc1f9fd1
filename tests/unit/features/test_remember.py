"""What one person asked is in nothing that outlives the night; what several asked is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.searched import searched
from tests.shown import counted, impressions

from reshelve.clickstream.remember import CUSTOMER_SQL, EVERYTHING, NEVER, remembered_from, remembered_sql
from reshelve.config.ranker import Ranker
from reshelve.config.remember import Remember
from reshelve.evaluation.gate import CHALLENGER, _shelves
from reshelve.examples.catalogue import Catalogue
from reshelve.examples.common_queries import common_queries
from reshelve.examples.event_counts import EventCounts
from reshelve.examples.formats import EVENTS, write_rows
from reshelve.export.catalogue import PackagedCatalogue
from reshelve.export.heldout import HeldOutQuestion, questions_to_keep
from reshelve.features.tables import Corpus, Searches
from reshelve.lineage.run import Run
from reshelve.store.objects import ObjectStore

RULE = Remember(customers=3, days=2)
TODAY = date(2011, 8, 30)
TITLES = ["red cup", "blue mug"]
# A query that one customer asks every day, and one that a group asks on one; and one of everybody, on several.
OWN = "anna huber birkenweg 7"
GROUP = "zyx 445"
COMMON = "red cup"
ASKED = [
    *[(OWN, "anna", ago) for ago in range(1, 10)],
    *[(GROUP, f"friend {number}", 3) for number in range(9)],
    *[(COMMON, f"customer {number}", 1 + number % 2) for number in range(3)],
]
Asked = Sequence[tuple[str, str, int]]


def rows(asked: Asked) -> list[dict[str, object]]:
    return [
        {"event_time": datetime.combine(TODAY - timedelta(days=ago), datetime.min.time()), "event_type": "click",
         "user_id": who, "session_id": f"{who} {ago}", "query": query, "item_id": "a"}
        for query, who, ago in asked
    ]  # fmt: skip


def searches(asked: Asked) -> Searches:
    queries, who, ago = zip(*asked, strict=True)
    days = [TODAY.toordinal() - number for number in ago]
    return searched(queries, [0] * len(asked), days, [1.0] * len(asked), who)


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    write_rows(tmp_path / "events.parquet", EVENTS, rows(ASKED))
    return tmp_path


EVENT = st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 4))


@given(st.lists(EVENT, max_size=30), st.integers(1, 4), st.integers(1, 4))
def test_it_is_remembered_once_enough_customers_asked_it_on_enough_days(
    events: list[tuple[int, int, int]], customers: int, days: int
) -> None:
    def asked_by(morning: int, thing: int) -> bool:
        past = [(who, day) for what, who, day in events if what == thing and day < morning]
        return len({who for who, _ in past}) >= customers and len({day for _, day in past}) >= days

    columns = np.array(events, np.int64).reshape(-1, 3).T
    found = remembered_from(*columns, Remember(customers=customers, days=days), 4)
    for thing in range(4):
        for morning in range(6):
            assert (found[thing] < morning) == asked_by(morning, thing)


def remembered_on(
    names: list[str], customers: list[str], days: list[date], rule: Remember = RULE
) -> dict[str, date]:
    """`remembered_sql` of events."""
    db = impressions(names, names, days, days, customers)
    sql = remembered_sql("SELECT norm AS name, customer, day FROM impressions", rule)
    return dict(db.execute(sql).fetchall())


@given(st.lists(EVENT, max_size=30), st.integers(1, 4), st.integers(1, 4))
@settings(deadline=None, max_examples=30)
def test_the_database_remembers_the_same(
    events: list[tuple[int, int, int]], customers: int, days: int
) -> None:
    rule = Remember(customers=customers, days=days)
    columns = np.array(events, np.int64).reshape(-1, 3).T
    found = remembered_from(columns[0], columns[1], columns[2] + TODAY.toordinal(), rule, 4)
    expected = {str(thing): date.fromordinal(day) for thing, day in enumerate(found) if day < NEVER}
    names, who = ([str(value) for value in column] for column in columns[:2])
    assert (
        remembered_on(names, who, [TODAY + timedelta(days=int(day)) for day in columns[2]], rule) == expected
    )


def test_who_has_no_id_is_one_customer_a_day() -> None:
    days = [TODAY - timedelta(days=number) for number in (0, 0, 0, 1, 2)]
    given = [(None, None, day) for day in days] + [("anna", "visit", TODAY), (None, "visit", TODAY)]
    ids = pa.table([*map(list, zip(*given, strict=True))], names=["user_id", "session_id", "event_time"])
    found = duckdb.from_arrow(ids).project(f"{CUSTOMER_SQL} AS customer").fetchall()
    *who, known, visit = (one for (one,) in found)
    assert (known, visit) == ("anna", "visit")
    assert remembered_on(["mug"] * 5, who, days) == {"mug": TODAY}
    assert remembered_on(["mug"] * 4, who[:4], days[:4]) == {}


def test_tables_hold_neither_a_rare_query_nor_a_part_of_it() -> None:
    tables = Corpus(searches(ASKED), TITLES, RULE).tables(TODAY)
    assert tables.keys == ["redcup"]
    of_titles = Corpus(searches([(COMMON, "x", 1)]), TITLES, EVERYTHING).tables(TODAY).grams
    assert set(tables.grams) == set(of_titles)
    everything = Corpus(searches(ASKED), TITLES, EVERYTHING).tables(TODAY)
    assert len(everything.keys) == 3 and {"w:anna", "w:zyx"} <= set(everything.grams)


def test_what_rare_queries_share_says_something_of_items() -> None:
    asked = [(f"lantern {name}", f"customer {name}", 1 + place % 2) for place, name in enumerate("abcd")]
    tables = Corpus(searches(asked), TITLES, RULE).tables(TODAY)
    assert tables.keys == []
    assert "w:lantern" in tables.grams and not {"w:a", "w:b", "w:c", "w:d"} & set(tables.grams)


def test_a_title_that_one_customer_asked_for_says_nothing_of_what_they_chose() -> None:
    asked = [("blue mug", "anna", ago) for ago in range(1, 10)]
    tables = Corpus(searches(asked), TITLES, RULE).tables(TODAY)
    asked_column = tables.gram[:, 4]
    assert "w:mug" in tables.grams and not asked_column.any()
    assert Corpus(searches(asked), TITLES, EVERYTHING).tables(TODAY).gram[:, 4].any()


def test_only_what_was_asked_before_the_morning_counts() -> None:
    corpus = Corpus(searches(ASKED), TITLES, RULE)
    assert corpus.tables(TODAY - timedelta(days=1)).keys == []


def test_rates_are_of_queries_that_may_be_remembered_and_of_every_item() -> None:
    queries, who, ago = (list(column) for column in zip(*ASKED, strict=True))
    days = [TODAY - timedelta(days=number) for number in ago]
    seen = counted(queries, ["a"] * len(days), days, days, who, rule=RULE)
    assert [name.split("\x1f")[:2] for name in seen.rates(TODAY).names] == [
        ["both", "redcup"], ["item", "a"], ["query", "redcup"],
    ]  # fmt: skip
    (count,) = [
        row[2]
        for name, row in zip(seen.rates(TODAY).names, seen.rates(TODAY).values, strict=True)
        if name[:4] == "item"
    ]
    assert count == pytest.approx(np.log1p(len(ASKED)))


def test_popularity_by_query_and_what_people_are_shown(examples: Path) -> None:
    catalogue = Catalogue(("a",), ("red cup",), [1], [1])
    for rule, known in ((RULE, [COMMON]), (EVERYTHING, sorted({OWN, GROUP, COMMON}))):
        past = EventCounts(
            examples / "events.parquet", catalogue, {"click": 1.0}, TODAY, examples / "spill", rule
        )
        assert sorted(past.searches()) == known
        assert sorted(common_queries(examples, rule)) == known


def test_nobody_is_shown_what_is_masked_however_many_typed_it(tmp_path: Path) -> None:
    """Days from before something was masked, and what stands in its place since: neither is a query to show."""
    typed = ("gift for anna.b@example.org", "gift for <e-mail>", COMMON)
    asked = [(query, f"customer {number}", 1 + number % 3) for query in typed for number in range(6)]
    write_rows(tmp_path / "events.parquet", EVENTS, rows(asked))
    assert common_queries(tmp_path, RULE) == [COMMON]


def test_the_gate_shows_a_person_no_customers_own_question(examples: Path) -> None:
    ranker = Ranker.model_validate(
        {"name": "shop", "title": "The shop", "kind": "search", "data": {"source": "shop"}, "gates": {"metric": "map@5"},
         "remember": {"customers": 3, "days": 2}}
    )  # fmt: skip
    texts = (OWN, GROUP, COMMON)
    evidence: Any = SimpleNamespace(
        held=SimpleNamespace(queries=[SimpleNamespace(text=text, relevant=["a"]) for text in texts]),
        catalogue=SimpleNamespace(items=["a"], titles=["red cup"]),
        answers={CHALLENGER: SimpleNamespace(ranked=[["a"]] * len(texts))},
    )
    assert [shelf.asked for shelf in _shelves(ranker, evidence, examples)] == [COMMON]


@pytest.mark.parametrize(("kind", "kept"), [("search", ["red cup", "Red  Cup", "red cup"]), ("next_item", ["red cup", "red cup", "blue mug ; red cup"])])  # fmt: skip
def test_a_version_keeps_no_customers_own_text(
    store: ObjectStore, examples: Path, kind: str, kept: list[str]
) -> None:
    ranker = Ranker.model_validate(
        {"name": "shop", "title": "The shop", "kind": kind, "data": {"source": "shop"}, "gates": {"metric": "map@5"},
         "remember": {"customers": 3, "days": 2}}
    )  # fmt: skip
    own = OWN if kind == "search" else "anna's lamp ; anna's bed"
    questions = [HeldOutQuestion(text, ["a"]) for text in (GROUP, "Red  Cup", own)]
    catalogue = PackagedCatalogue(["a", "b"], TITLES, [1, 1])
    found = questions_to_keep(Run(ranker, TODAY, store, examples / "work"), examples, catalogue, questions)
    if kind == "search":
        assert [question.text for question in found] == kept
    else:
        assert found[2].text == "red cup ; blue mug"
    assert [question.candidates for question in found] == [["a"]] * 3
    assert not any(name in question.text for question in found for name in ("anna", "zyx"))


def test_more_days_than_are_read_are_refused() -> None:
    document = {"name": "shop", "title": "The shop", "kind": "search", "data": {"source": "shop", "window_days": 7},
                "gates": {"metric": "map@5"}, "remember": {"days": 8}}  # fmt: skip
    with pytest.raises(ValueError, match="nothing would ever be remembered"):
        Ranker.model_validate(document)
