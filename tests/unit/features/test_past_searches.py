"""What the blend stage reads of past searches, against a slow count of every event; and what it costs as they grow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from datetime import date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.measured import peak_megabytes
from tests.searched import searched

from reshelve.config.ranker import Ranker
from reshelve.config.remember import Remember
from reshelve.examples.catalogue import Catalogue
from reshelve.examples.formats import EVENTS, write_rows
from reshelve.features.postings import Postings
from reshelve.features.tables import Corpus, Searches, SearchTables
from reshelve.kinds.search.past_searches import read_searches
from reshelve.settings import PROJECT

TODAY = datetime(2011, 8, 30)
SAMPLE = PROJECT / "include" / "sample_data"
Event = dict[str, object]


def ranker(customers: int = 3, days: int = 2) -> Ranker:
    return Ranker.model_validate(
        {"name": "shop", "title": "The shop", "kind": "search", "gates": {"metric": "map@5"},
         "data": {"source": "shop", "events": {"click": 1.0, "purchase": 0.3}}, "remember": {"customers": customers, "days": days}}
    )  # fmt: skip


def catalogue_of(*items: str) -> Catalogue:
    return Catalogue(items, tuple(f"red {item}" for item in items), [1] * len(items), [1] * len(items))


def slowly(events: Sequence[Event], catalogue: Catalogue, of: Ranker) -> Searches:
    """Every event for itself."""
    labels = of.data.label_weights
    rows = [
        (str(event["query"]).strip(), catalogue.index[item], event["event_time"].date().toordinal(), labels[kind],
         event["user_id"] or event["session_id"] or str(event["event_time"].date()))
        for event in events
        if str(event["query"] or "").strip()
        and (item := event["item_id"]) in catalogue.index and (kind := event["event_type"]) in labels
    ]  # fmt: skip
    return searched(*(zip(*rows, strict=True) if rows else [()] * 5))


def assert_the_same(found: SearchTables, expected: SearchTables) -> None:
    for field in fields(SearchTables):
        one, other = getattr(found, field.name), getattr(expected, field.name)
        if isinstance(one, list):
            assert one == other
        elif isinstance(one, Postings):
            assert np.array_equal(one.starts, other.starts) and np.array_equal(one.columns, other.columns)
            np.testing.assert_allclose(one.weights, other.weights, rtol=1e-6, atol=1e-7)
        else:
            np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)


EVENT = st.fixed_dictionaries(
    {"event_time": st.integers(0, 40).map(lambda hours: TODAY - timedelta(hours=6 * hours)),
     "event_type": st.sampled_from(["click", "purchase", "impression"]),
     "user_id": st.sampled_from([None, None, "anna", "ben", "cy", "dora"]), "session_id": st.sampled_from([None, "x", "y"]),
     "query": st.sampled_from(["red cup", " red cup", "Red-Cup\u3000", "blue mug", "cup\t", "", "  ", None, "?!", "日本 cup"]),
     "item_id": st.sampled_from(["a", "b", "gone"])}
)  # fmt: skip


@pytest.mark.slow
@given(st.lists(EVENT, max_size=40), st.integers(1, 3), st.integers(1, 3))
@settings(deadline=None, max_examples=12)
def test_tables_are_those_of_every_event_counted_for_itself(
    events: list[Event], customers: int, days: int
) -> None:
    of, catalogue = ranker(customers, days), catalogue_of("a", "b")
    with TemporaryDirectory() as directory:
        path = Path(directory) / "events.parquet"
        write_rows(path, EVENTS, events)
        found = read_searches(path, catalogue, of, Path(directory) / "spill")
    assert (np.bincount(found.asked.texts, minlength=1) <= customers + days).all()
    expected = slowly(events, catalogue, of)
    for as_of in (TODAY + timedelta(days=1), TODAY - timedelta(days=3)):
        tables = [
            Corpus(each, list(catalogue.titles), of.remember).tables(as_of.date())
            for each in (found, expected)
        ]
        assert_the_same(*tables)


@pytest.mark.slow
def test_the_searches_of_the_sample_have_the_tables_that_they_had(tmp_path: Path) -> None:
    of = ranker().model_copy(update={"remember": Remember()})
    db = duckdb.connect()
    columns = "CAST(time AS TIMESTAMP) AS event_time, 'click' AS event_type, visitor AS user_id, NULL AS session_id, query"
    rows = f"SELECT {columns}, product AS item_id FROM read_parquet('{SAMPLE / 'searches.parquet'}')"
    write_rows(tmp_path / "events.parquet", EVENTS, db.sql(rows).to_arrow_table().to_pylist())
    products = pq.read_table(SAMPLE / "search_products.parquet").to_pydict()
    events = [0] * len(products["product"])
    catalogue = Catalogue(tuple(products["product"]), tuple(products["name"]), events, events)
    found = read_searches(tmp_path / "events.parquet", catalogue, of, tmp_path / "spill")
    expected = slowly(pq.read_table(tmp_path / "events.parquet").to_pylist(), catalogue, of)
    assert found.weights.sum() == len(expected.items) > 10_000
    for day in (date(2011, 8, 20), date(2011, 9, 1)):
        tables = [Corpus(each, list(catalogue.titles), of.remember).tables(day) for each in (found, expected)]
        assert len(tables[0].keys) > 50
        assert_the_same(*tables)


GROWN = """
from pathlib import Path
import duckdb
from reshelve.clickstream import database
from reshelve.config.ranker import Ranker
from reshelve.examples.catalogue import Catalogue
database._MEMORY = "150MB"
from reshelve.kinds.search.past_searches import read_searches
events, items = Path(directory) / "events.parquet", [f"item {n}" for n in range(300)]
duckdb.execute(f'''COPY (SELECT TIMESTAMP '2011-08-01' + to_hours(n % 480) AS event_time, 'click' AS event_type,
    'customer ' || (hash(n + 3) % 100000) AS user_id, 'visit ' || n AS session_id, 'query ' || (hash(n) % 1000) AS query,
    'item ' || (hash(n + 1) % 300) AS item_id FROM range({rows}) AS given(n)) TO '{events}' (FORMAT parquet)''')
duckdb.default_connection().close()
ranker = Ranker.model_validate({"name": "shop", "title": "The shop", "kind": "search", "data": {"source": "shop"},
                                "gates": {"metric": "map@5"}})
found = read_searches(events, Catalogue(items, items, [1] * 300, [1] * 300), ranker, Path(directory) / "spill")
assert found.weights.sum() == rows and len(found.asked.texts) < 10_000
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_searches(tmp_path: Path) -> None:
    few, many = (peak_megabytes(GROWN, rows=rows, directory=str(tmp_path)) for rows in (200_000, 1_000_000))
    assert many - few < 200, "a Python list of them all would be 325 MB more"
