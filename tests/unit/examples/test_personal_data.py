"""The list of what is kept of people, held against what landing, validating and a night's first stage really write."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from reshelve.examples.build import build_examples
from reshelve.landing.land import land
from reshelve.pipeline.personal_data import BUCKET, EXAMPLES, HOME, held_as
from reshelve.pipeline.pinned_night import begin
from reshelve.pipeline.reuse import do_stage
from reshelve.settings import settings
from reshelve.validation.validate import validate

TELL = {"user_id", "session_id", "session", "query", "text", "input_ids"}
"""Columns that hold what a person is called or has typed."""


@pytest.mark.slow
def test_whatever_is_written_is_in_the_list_and_what_tells_of_people_is_said_to(trading_shop, day_of):
    land("retail", date(2011, 8, 1), date(2011, 8, 1))
    validate("retail", date(2011, 8, 1))
    run = trading_shop.run("search", day_of(5))
    run = type(run)(run.ranker, run.partition, run.store, settings().work)
    begin(run, {})
    do_stage(run, "examples", build_examples)
    home = settings().home
    files = {path.relative_to(home).as_posix(): path for path in home.rglob("*") if path.is_file()}
    keys = [key for key, _ in run.store.list("")]
    assert any(EXAMPLES.holds(key) for key in keys) and any(name.startswith("work/") for name in files)
    for name, places in [*((key, BUCKET) for key in keys), *((name, HOME) for name in files)]:
        held = held_as(name, places)
        assert held is not None, f"{name} is in no entry of the list"
        if name.endswith(".parquet"):
            path = files.get(name, home / "looked-at.parquet")
            if name not in files:
                run.store.download_file(name, path)
            assert held.personal or not TELL & set(pq.read_schema(path).names), f"{name} tells of people"


@pytest.mark.parametrize("places", [BUCKET, HOME], ids=["bucket", "home"])
def test_no_entry_hides_behind_another(places):
    for held in places:
        example = held.where.replace("**", "a/b.c").replace("*", "a")
        first = held_as(example, places)
        assert first is held, f"{held.where} is never reached: {first and first.where} comes first"


def test_places_are_said_where_housekeeping_takes_them_from():
    page = (Path(__file__).parents[3] / "docs" / "reference" / "personal-data.md").read_text()
    assert all(f"| `{held.where}` |" in page for held in (*BUCKET, *HOME))
