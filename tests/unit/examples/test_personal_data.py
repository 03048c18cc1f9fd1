"""The list of what is kept of people, held against what landing, validating and a night's first stage really write."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from reshelve.examples.build import build_examples
from reshelve.gateway import token_verbs
from reshelve.landing.land import land
from reshelve.pipeline.personal_data import BUCKET, EXAMPLES, HOME, SCRATCH_OF, WORK, End, held_as
from reshelve.pipeline.pinned_night import begin
from reshelve.pipeline.reuse import do_stage
from reshelve.platform.configuration import machine
from reshelve.platform.new_keys import make_keys
from reshelve.platform.services import PlatformState
from reshelve.platform.serving import process_environment
from reshelve.platform.supervisor import Restarts
from reshelve.settings import settings
from reshelve.validation.validate import validate

TELL = {
    "user_id": "ids", "session_id": "ids", "session": "ids|pseudonyms", "query": "queries", "text": "queries", "input_ids": "histories",
}  # fmt: skip
"""Columns that hold what a person is called or has typed, and what an entry that may have them has to say."""


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
            said = (
                "ids, queries, histories" if held is WORK else held.personal
            )  # as the run's files in the bucket
            for column in TELL.keys() & set(pq.read_schema(path).names):
                assert re.search(TELL[column], said), (
                    f"{name}: {held.where} does not say that there is a {column}"
                )


@pytest.mark.parametrize("places", [BUCKET, HOME], ids=["bucket", "home"])
def test_no_entry_hides_behind_another(places):
    for held in places:
        example = held.where.replace("**", "a/b.c").replace("*", "a")
        first = held_as(example, places)
        assert first is held, f"{held.where} is never reached: {first and first.where} comes first"


def test_places_are_said_where_housekeeping_takes_them_from():
    page = (Path(__file__).parents[3] / "docs" / "reference" / "personal-data.md").read_text()
    assert all(f"| `{held.where}` |" in page for held in (*BUCKET, *HOME))


def test_what_the_local_platform_keeps_is_in_the_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESHELVE_HOME", str(tmp_path / "home"))  # not that of a platform which may run here
    settings.cache_clear()
    here = machine()
    here.home.mkdir()
    PlatformState().write(here.home)
    Restarts().write(here.home)
    make_keys(here.home)
    process_environment("model-server", here)
    here.write_environment_file()
    token_verbs.make("shop", rankers=[], days=0)
    assert here.secrets
    places = [here.logs, here.airflow, here.postgres, here.store, here.models, here.home / "followed"]
    found = [path for path in here.home.rglob("*") if path.is_file()]
    assert len(found) > 10
    for path in [*found, *(place / "any" for place in places)]:
        name = path.relative_to(here.home).as_posix()
        assert held_as(name, HOME) is not None, f"{name} is in no entry of the list"


def test_every_temporary_directory_is_in_the_list_and_no_work_directory_is_one() -> None:
    """Those that the package makes (`tests/unit/test_scratch.py` looks for others), and the benchmarks'."""
    benchmarks = (Path(__file__).parents[3] / "benchmarks").rglob("*.py")
    made = re.compile(r'dir=settings\(\)\.work, prefix="([^"]+)-"')
    names = {name for path in benchmarks for name in made.findall(path.read_text())}
    assert names
    for name in (*names, *SCRATCH_OF):
        held = held_as(f"work/{name}-x1y2z3/land.duckdb", HOME)
        assert held is not None and held.end is End.SCRATCH, name
    assert held_as("work/next-item/2011-08-30/1a2b3c4d5e6f/examples/events.parquet", HOME) is WORK
