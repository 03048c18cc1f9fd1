"""What a person reads of a verdict: the report, Great Expectations' Data Docs, the log; and whom none of them shows."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta

import pyarrow as pa
import pytest

from reshelve.store.objects import ObjectStore
from reshelve.validation.validate import validate
from reshelve.validation.verdicts import validation_page

DAY = date(2011, 8, 1)
Events = Callable[..., pa.Table]
Land = Callable[..., None]


def page(store: ObjectStore, name: str, day: date = DAY) -> str:
    found = validation_page(store, "retail", day, name)
    assert found is not None
    return found.decode()


def words(html: str) -> str:
    """What is read of a page: no tags, single spaces."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", html))


@pytest.mark.parametrize("name", ["report.html", "data_docs.html"])
def test_a_page_loads_nothing_and_calls_nobody(
    store: ObjectStore, events: Events, land_bytes: Land, name: str
) -> None:
    land_bytes(events(40, {7: {"price": -1.0}}))
    validate("retail", DAY)
    html = page(store, name)
    assert "<script" not in html and "://" not in html and "@import" not in html and "src=" not in html
    links = re.findall(r'href="([^"#][^"]*)"', html)
    assert links == (["data_docs.html"] if name == "report.html" else [])


def test_the_report_shows_rows_that_break_a_rule(
    store: ObjectStore, events: Events, land_bytes: Land
) -> None:
    land_bytes(events(40, {7: {"price": -1.0, "item_id": "<b>i7</b>"}}))
    result = validate("retail", DAY)
    text = page(store, "report.html")
    assert store.key(result["report_uri"]).endswith("/report.html")
    assert "price_possible" in text and "&lt;b&gt;i7&lt;/b&gt;" in text and "-1.0" in text


def test_data_docs_say_what_was_asked_and_what_was_found(
    store: ObjectStore, events: Events, land_bytes: Land
) -> None:
    land_bytes(events(40, {7: {"event_type": "purchas"}, 8: {"event_type": "buy"}}))
    validate("retail", DAY)
    html = page(store, "data_docs.html")
    said = words(html)
    (summary,) = re.findall(r"(\d+) of (\d+) expectations hold", said)
    assert int(summary[0]) == int(summary[1]) - 1 == html.count("fa-check-circle text-success")
    assert html.count("fa-times text-danger") == 1
    assert "values must belong to this set: impression click cart purchase return judgement" in said
    assert "2 unexpected values found. 5% of 40 total rows." in said
    assert "purchas " not in said and "buy" not in said  # the values themselves are a row's


def test_the_same_verdict_has_the_same_data_docs(
    store: ObjectStore, events: Events, land_bytes: Land
) -> None:
    land_bytes(events(40, {7: {"price": -1.0}}))
    validate("retail", DAY)
    first = page(store, "data_docs.html")
    store.delete([key for key, _ in store.list("validated/")])
    assert not validate("retail", DAY)["reused"]
    assert page(store, "data_docs.html") == first


def test_files_that_cannot_be_read_have_a_report_without_data_docs(
    store: ObjectStore, land_bytes: Land
) -> None:
    land_bytes(b"no parquet")
    validate("retail", DAY)
    assert "data_docs" not in page(store, "report.html")
    assert validation_page(store, "retail", DAY, "data_docs.html") is None


def test_the_days_before_are_drawn(store: ObjectStore, events: Events, land_bytes: Land) -> None:
    for later, (rows, nameless) in enumerate(((30, 0), (40, 0), (50, 0), (60, 2))):
        day = DAY + timedelta(days=later)
        at = {n: {"event_time": datetime(day.year, day.month, day.day, 9, n % 60)} for n in range(rows)}
        table = events(rows, {n: {**at[n], **({"item_id": None} if n < nameless else {})} for n in at})
        land_bytes(table, day=day)
        validate("retail", day)
    assert "<svg" not in page(store, "report.html")  # the first day has nothing before it
    html = page(store, "report.html", DAY + timedelta(days=3))
    assert html.count("<svg") == 1
    assert "3 usable earlier days (median 40) and, last, of this day: 60, of which 2 are quarantined" in html
    assert all(f"{day:02d} Aug" in html for day in (1, 2, 3, 4))


BAD_ROWS = {
    "pass": {7: {"query": "my secret words " * 20}, 9: {"price": -1.0, "query": "my secret words"}},
    "stop": {row: {"price": -1.0, "query": "my secret words " * 20} for row in range(30)},
}


@pytest.fixture(params=sorted(BAD_ROWS))
def judged(
    request: pytest.FixtureRequest, store: ObjectStore, events: Events, land_bytes: Land
) -> Iterator[str]:
    """A partition whose people and words are known, judged; the verdict that is expected."""
    sessions = {row: {"session_id": f"secret visit {row}"} for row in range(40)}
    changes = {row: {**sessions[row], **BAD_ROWS[request.param].get(row, {})} for row in range(40)}
    land_bytes(events(40, changes))
    yield request.param


def test_rows_reach_the_two_files_of_rows_and_nothing_else(
    judged: str, store: ObjectStore, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("DEBUG"):
        result = validate("retail", DAY)
    assert result["verdict"] == judged
    printed = capfd.readouterr()
    outputs = {"result": json.dumps(result), "log": printed.out + printed.err + caplog.text}
    for key, _ in store.list("validated/"):
        found = store.get(key)
        assert found is not None
        outputs[key] = found.body.decode("latin-1")
    rows = [key for key in outputs if key.endswith(("good.parquet", "quarantine.parquet"))]
    assert len(rows) == (2 if judged == "pass" else 1)
    assert len(outputs) - len(rows) >= 6
    for name in set(outputs) - set(rows):
        assert "secret" not in outputs[name], name
