"""The drawn searches: what was put in is in them, and the script draws them again."""

from __future__ import annotations

import runpy
from datetime import date
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from reshelve.settings import PROJECT

SAMPLE = PROJECT / "include" / "sample_data"
LAST = date(2011, 8, 31)


def ask(sql: str) -> tuple:
    db = duckdb.connect()
    for name in ("searches", "search_products"):
        db.read_parquet(str(SAMPLE / f"{name}.parquet")).create_view(name)
    db.read_parquet(str(SAMPLE / "uci_online_retail.parquet")).create_view("uci")
    return db.execute(sql).fetchone() or ()


def test_it_is_small_and_of_titles_that_may_be_shown() -> None:
    assert sum(file.stat().st_size for file in SAMPLE.glob("search*.parquet")) < 1_000_000
    strangers = ask("SELECT count(*) FROM search_products WHERE name NOT IN (SELECT trim(Description) FROM uci"
                    " WHERE Description IS NOT NULL)")  # fmt: skip
    assert strangers == (0,)
    assert ask("SELECT count(*) FROM searches ANTI JOIN search_products USING (product)") == (0,)


def test_misspellings_repeats_unseen_queries_and_drift_are_in_it() -> None:
    misspelt, repeated = ask(
        """SELECT avg((query <> meant)::INT), avg(times_before) FROM (
             SELECT *, (row_number() OVER (PARTITION BY query ORDER BY time) > 1)::INT AS times_before FROM searches)"""
    )
    assert 0.08 < misspelt < 0.12
    assert 0.6 < repeated < 0.9
    (unseen,) = ask(f"""SELECT avg((query NOT IN (SELECT query FROM searches WHERE time < '{LAST}'))::INT)
                        FROM searches WHERE time >= '{LAST}'""")
    assert 0.08 < unseen < 0.3
    (new,) = ask(
        "SELECT count(*) FROM (SELECT min(time) AS first FROM searches GROUP BY product) WHERE first > '2011-08-08'"
    )
    assert new > 30
    # What was searched most in the first week is not what is in the last.
    first, last = (f"(SELECT product FROM searches WHERE time {when} GROUP BY 1 ORDER BY count(*) DESC LIMIT 40)"
                   for when in ("< '2011-07-25'", ">= '2011-08-25'"))  # fmt: skip
    (stayed,) = ask(f"SELECT count(*) FROM {first} AS a SEMI JOIN {last} AS b USING (product)")
    assert 5 < stayed < 30


def test_the_script_draws_the_files_that_are_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["search_sample.py", "--to", str(tmp_path)])
    runpy.run_path(str(PROJECT / "scripts" / "search_sample.py"), run_name="__main__")
    for name in ("searches.parquet", "search_products.parquet"):
        assert pq.read_table(tmp_path / name).equals(pq.read_table(SAMPLE / name)), name
