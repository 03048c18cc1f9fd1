"""A source is a file: what is wrong in it is named by file, line and key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from reshelve.errors import ConfigurationError
from reshelve.landing.land import land
from reshelve.raw.sources import load_source
from reshelve.settings import settings

CSV = "seen,visit,sku,q\n2011-08-01 09:00:00,v1,11,teapot\n2011-08-03 10:00:00,v2,12,cup\n"


@pytest.mark.parametrize("name", ["retail", "mobile_search"])
def test_the_shipped_sources_load(name: str) -> None:
    assert load_source(name).name == name


def test_an_unknown_source_lists_the_known() -> None:
    with pytest.raises(ConfigurationError, match="'retial' is not a clickstream source") as caught:
        load_source("retial")
    assert "mobile_search, retail" in caught.value.detail


def test_rules_that_are_not_there_are_named_with_their_line(raw_source: Callable[..., Path]) -> None:
    path = raw_source(CSV)
    path.write_text(path.read_text() + "rules: clickstrem\n")
    line = len(path.read_text().splitlines())
    with pytest.raises(
        ConfigurationError, match=rf"{path}:{line}: rules: no rule file 'clickstrem'"
    ) as caught:
        load_source("shop")
    assert "clickstream" in caught.value.detail


def test_a_column_without_expression_is_named(raw_source: Callable[..., Path]) -> None:
    path = raw_source(CSV, item_id="")
    with pytest.raises(ConfigurationError, match=rf"{path}:.*no expression for item_id"):
        load_source("shop")


@pytest.mark.parametrize(
    ("change", "line", "problem"),
    [
        pytest.param({"item_id": "skuu"}, 12, r"columns\.item_id: .*skuu.*not found", id="no such raw column"),
        pytest.param({"session_id": "lower(visit"}, 10, r"columns\.session_id: .*syntax", id="no SQL"),
        pytest.param({"price": "CAST(q AS DOUBLE)"}, 16, r"columns\.price: a text cannot be converted to DOUBLE \(row 1 of", id="a value that does not fit"),
    ],
)  # fmt: skip
def test_a_wrong_expression_names_file_line_and_key(
    raw_source: Callable[..., Path], change: dict[str, str], line: int, problem: str
) -> None:
    path = raw_source(CSV, **change)
    with pytest.raises(ConfigurationError, match=rf"{path}:{line}: {problem}"):
        land("shop")


def test_missing_raw_files_are_named(raw_source: Callable[..., Path], tmp_path: Path) -> None:
    path = raw_source(CSV)
    (tmp_path / "raw.csv").unlink()
    with pytest.raises(ConfigurationError, match=rf"{path}:2: files: no file at .*raw\*\.csv"):
        land("shop")


def test_data_kept_outside_the_project_is_found_by_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESHELVE_DATA", str(tmp_path / "nowhere"))
    settings.cache_clear()
    try:
        with pytest.raises(ConfigurationError, match=r"no file at .*nowhere/bestbuy") as caught:
            land("mobile_search")
        assert "set RESHELVE_DATA" in caught.value.detail
    finally:
        settings.cache_clear()
