"""A mapping that says by `{date}` where the files of a day lie: its days land one by one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from reshelve.cli import app
from reshelve.clickstream.dated_files import Span, by_day, path_of, problem
from reshelve.clickstream.events import landed_prefix
from reshelve.errors import ConfigurationError, DataError, NotDeliveredError, PartlyDoneError
from reshelve.landing import land as landing
from reshelve.landing.land import land, land_day
from reshelve.landing.mapping import map_events
from reshelve.raw.sources import load_source
from reshelve.store.objects import ObjectStore

HEADER = "seen,visit,sku,q\n"
D1, D2, D3 = date(2026, 1, 1), date(2026, 1, 2), date(2026, 1, 3)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        pytest.param("clicks-{date}.csv", "clicks-2026-01-02.csv", id="iso"),
        pytest.param("clicks_{date:%Y%m%d}_*.csv", "clicks_20260102_03.csv", id="hours of a day"),
        pytest.param("{date:%Y}/{date:%m}/{date:%d}/*.csv", "2026/01/02/a.csv", id="folders"),
        pytest.param("**/dt={date}/part-?.csv", "eu/shop/dt=2026-01-02/part-1.csv", id="at any depth"),
        pytest.param("{date:%Y/%m}/clicks-{date:%y%j}.csv", "2026/01/clicks-26002.csv", id="named twice"),
    ],
)
def test_a_file_is_known_by_its_day(tmp_path: Path, pattern: str, name: str) -> None:
    other = (
        name.replace("002", "003").replace("01-02", "01-03").replace("0102", "0103").replace("01/02", "01/03")
    )
    for each in (name, other, "clicks-latest.csv", "clicks-2026-13-45.csv"):
        (tmp_path / each).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / each).touch()
    assert problem(pattern) == ""
    assert by_day(tmp_path / pattern) == {D2: [tmp_path / name], D3: [tmp_path / other]}
    if not set("*?") & set(pattern):
        assert path_of(pattern, D2) == name


@pytest.fixture
def daily(raw_source: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """A source by `raw-{date}.csv`; `daily(neighbour_days=1)` adds keys."""

    def make(files: str = "raw-{date}.csv", **keys: int) -> Path:
        path = raw_source("")
        (tmp_path / "raw.csv").unlink()
        text = path.read_text().replace("/raw*.csv", f"/{files}")
        path.write_text(text + "".join(f"{key}: {value}\n" for key, value in keys.items()))
        return path

    return make


def deliver(directory: Path, day: date, *seen: str) -> None:
    """The file of a day, with a click at each time."""
    rows = "".join(f"{when},v{number},{number + 10},cup\n" for number, when in enumerate(seen))
    (directory / f"raw-{day}.csv").write_text(HEADER + rows)


@pytest.mark.parametrize(
    ("files", "keys", "said"),
    [
        pytest.param("raw-{date:%Y%m}.csv", {}, "does not tell a day", id="a month"),
        pytest.param("raw-{date:%Q}.csv", {}, "%Q in {date:%Q} is none of", id="no directive"),
        pytest.param("raw-{date:YYYYMMDD}.csv", {}, "does not tell a day", id="another tongue"),
        pytest.param("raw-*.csv", {"neighbour_days": 1}, "only if `files` has a {date}", id="no date"),
        pytest.param(
            "raw-*.csv", {"wait_minutes": 5}, "only if `files` has a {date}", id="nothing to wait for"
        ),
    ],
)
def test_a_path_that_tells_no_day_is_refused_with_its_line(
    daily: Callable[..., Path], files: str, keys: dict[str, int], said: str
) -> None:
    path = daily(files, **keys)
    with pytest.raises(ConfigurationError) as told:
        load_source("shop")
    assert str(told.value).startswith(f"{path}:") and said in str(told.value)


def test_a_day_reads_its_own_files_alone(
    store: ObjectStore, daily: Callable[..., Path], tmp_path: Path
) -> None:
    daily()
    deliver(tmp_path, D1, "2026-01-01 09:00:00")
    (tmp_path / f"raw-{D2}.csv").write_text('seen,visit,sku,q\n"broken')
    done = land_day("shop", D1)
    assert (done["partitions"], done["rows"], done["first"]) == (1, 1, "2026-01-01")
    assert store.folders("clickstream/shop/") == ["dt=2026-01-01"]


def test_a_day_without_files_is_not_delivered_and_says_what_was_expected(
    store: ObjectStore, daily: Callable[..., Path], tmp_path: Path
) -> None:
    path = daily()
    deliver(tmp_path, D1, "2026-01-01 09:00:00")
    for ask in (lambda: land_day("shop", D2), lambda: land("shop", D2, D3)):
        with pytest.raises(NotDeliveredError) as told:
            ask()
        assert f"{path}:2: files: expected {tmp_path}/raw-2026-01-0" in told.value.detail
    answer = CliRunner().invoke(app, ["land", "-s", "shop", "-p", str(D2), "--json"])
    assert isinstance(answer.exception, NotDeliveredError) and answer.exception.exit_code == 75
    assert store.folders("clickstream/shop/") == []


def test_rows_of_another_day_are_counted_and_the_day_lands(
    store: ObjectStore, daily: Callable[..., Path], tmp_path: Path
) -> None:
    daily()
    deliver(tmp_path, D1, "2026-01-01 09:00:00")
    deliver(tmp_path, D2, "2026-01-02 09:00:00", "2026-01-01 23:59:59")
    land_day("shop", D1)
    with pytest.raises(PartlyDoneError, match="1 rows of 2026-01-01 are in the files of other days") as told:
        land_day("shop", D2)
    assert told.value.result["elsewhere"] == {"2026-01-01": 1}
    assert (told.value.result["partitions"], told.value.result["rows"]) == (1, 1)
    assert store.folders("clickstream/shop/") == ["dt=2026-01-01", "dt=2026-01-02"]


def test_rows_that_came_late_land_with_their_neighbour(
    store: ObjectStore, daily: Callable[..., Path], tmp_path: Path, read_table: Callable[[str], pa.Table]
) -> None:
    daily(neighbour_days=1)
    deliver(tmp_path, D1, "2026-01-01 09:00:00", "2025-12-31 23:00:00")
    assert land_day("shop", D1)["late_days"] == []
    assert store.folders("clickstream/shop/") == ["dt=2026-01-01"], "no day is begun by its neighbour's rows"
    deliver(tmp_path, D2, "2026-01-02 09:00:00", "2026-01-01 23:59:59", "2026-01-03 00:00:00")
    done = land_day("shop", D2)
    assert (done["late_days"], done["elsewhere"]) == (["2026-01-01"], {})
    assert len(read_table(landed_prefix("shop", D1) + "part-1.parquet")) == 1
    deliver(tmp_path, D3, "2026-01-03 09:00:00")
    assert land_day("shop", D3)["rows"] == 1 + 2, (
        "the row in yesterday's file, and yesterday's, found the same"
    )
    assert land("shop")["skipped"] == 3, "the days landed one by one are those of all files together"


def test_rows_that_came_too_late_are_counted_by_whichever_night_reads_them(
    daily: Callable[..., Path], tmp_path: Path
) -> None:
    daily(neighbour_days=1)
    for day in (D1, D2):
        deliver(tmp_path, day, f"{day} 09:00:00")
        land_day("shop", day)
    deliver(tmp_path, D3, "2026-01-03 09:00:00", "2026-01-01 23:59:59")
    with pytest.raises(PartlyDoneError, match="1 rows of 2026-01-01 are in the files of other days") as told:
        land_day("shop", D3)
    assert told.value.result["elsewhere"] == {"2026-01-01": 1}
    assert (told.value.result["partitions"], told.value.result["refused"]) == (2, [])


def test_a_day_that_holds_other_rows_is_bad_data_and_its_neighbours_are_not(
    daily: Callable[..., Path], tmp_path: Path
) -> None:
    daily(neighbour_days=1)
    deliver(tmp_path, D1, "2026-01-01 09:00:00")
    deliver(tmp_path, D2, "2026-01-02 09:00:00")
    land_day("shop", D1)
    land_day("shop", D2)
    deliver(tmp_path, D1, "2026-01-01 10:00:00")
    with pytest.raises(PartlyDoneError) as told:
        land_day("shop", D2)
    assert [one["day"] for one in told.value.result["refused"]] == ["2026-01-01"]
    deliver(tmp_path, D1, "2026-01-01 09:00:00")
    deliver(tmp_path, D2, "2026-01-02 10:00:00")
    with pytest.raises(DataError, match="2026-01-02 has already landed with other rows") as told_of_today:
        land_day("shop", D2)
    assert not isinstance(told_of_today.value, PartlyDoneError)


def test_the_product_list_is_the_newest_also_where_an_old_day_lands(
    daily: Callable[..., Path], tmp_path: Path
) -> None:
    path = daily()
    path.write_text(
        path.read_text()
        + f"catalogue: {{files: '{tmp_path}/products-{{date}}.csv', format: csv, item_id: sku, title: name}}\n"
    )
    for day in (D1, D2):
        deliver(tmp_path, day, f"{day} 09:00:00")
        (tmp_path / f"products-{day}.csv").write_text(f"sku,name\n10,cup of {day}\n" + "11,x\n" * (day == D2))
    assert land_day("shop", D1)["catalogue"]["items"] == 2
    assert land_day("shop", D2)["catalogue"]["items"] == 2


def test_a_span_without_bounds_reads_everything() -> None:
    found = {D1: [Path("a")], D3: [Path("b")]}
    assert Span().files(found) == found and Span().holds(D2)
    assert Span(D2, D2, 1).files(found) == found and Span(D2, D2).files(found) == {}


def while_it_maps(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], Any]) -> None:
    """What happens on the disk once the events are mapped."""

    def mapped(*given: Any) -> list[str]:
        made = map_events(*given)
        happens()
        return made

    monkeypatch.setattr(landing, "map_events", mapped)


def test_files_that_arrive_while_it_lands_are_the_next_nights(
    daily: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = daily(neighbour_days=1)
    listed = (
        f"catalogue: {{files: '{tmp_path}/list-{{date}}.csv', format: csv, item_id: sku, title: title}}\n"
    )
    path.write_text(path.read_text() + listed)
    (tmp_path / f"list-{D2}.csv").write_text("sku,title\n10,Cup\n")
    for day in (D1, D2):
        deliver(tmp_path, day, f"{day} 09:00:00")

    def arrive() -> None:
        deliver(tmp_path, D3, "2026-01-03 09:00:00", "2026-01-01 09:00:00")
        (tmp_path / f"list-{D3}.csv").write_text("sku,title\n10,Cup\n11,Tea\n")

    while_it_maps(monkeypatch, arrive)
    done = land_day("shop", D2)
    assert (done["partitions"], done["catalogue"]["items"], done["elsewhere"]) == (2, 1, {})


def test_a_file_that_is_gone_while_it_lands_is_named_before_a_day_has_landed(
    daily: Callable[..., Path], tmp_path: Path, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    daily(neighbour_days=1)
    deliver(tmp_path, D2, "2026-01-02 09:00:00")
    while_it_maps(monkeypatch, (tmp_path / f"raw-{D2}.csv").unlink)
    with pytest.raises(DataError, match=f"the raw files changed while they were landed: .*raw-{D2}.csv"):
        land_day("shop", D2)
    assert store.folders("clickstream/shop/") == []
