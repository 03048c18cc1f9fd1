"""Rows of people are found by kind, in batches, and what the bytes are not to blame for is no damage."""

from __future__ import annotations

import errno
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reshelve.clickstream.forgotten import Forgotten, Request, session_digest, user_digest, visit_digest
from reshelve.clickstream.forgotten_rows import DamagedFileError, drop_from_file

MONDAY, TUESDAY = date(2011, 8, 1), date(2011, 8, 2)


def forgotten(*digests: str) -> Forgotten:
    return Forgotten((), frozenset(digests), "x")


def written(path: Path, rows: list[tuple[str | None, str | None]], **how: Any) -> Path:
    users, sessions = zip(*rows, strict=True)
    pq.write_table(
        pa.table({"user_id": pa.array(users, pa.string()), "session_id": pa.array(sessions, pa.string())}),
        path,
        **how,
    )
    return path


def left(path: Path) -> list[tuple[str | None, str | None]]:
    return [(row["user_id"], row["session_id"]) for row in pq.read_table(path).to_pylist()]


def test_each_column_is_tested_against_its_own_kind(tmp_path: Path) -> None:
    rows = [("4711", "1"), ("9", "4711"), (None, "4711")]
    path = written(tmp_path / "a.parquet", rows)
    assert drop_from_file(path, forgotten(user_digest("4711")), [MONDAY]) == 1
    assert left(path) == rows[1:]
    assert drop_from_file(path, forgotten(session_digest("4711")), [MONDAY]) == 1
    assert left(path) == rows[1:2]


@pytest.mark.parametrize(("day", "gone"), [(MONDAY, 2), (TUESDAY, 0)])
def test_a_visit_that_was_found_goes_on_its_day_and_only_without_another_user(
    tmp_path: Path, day: date, gone: int
) -> None:
    path = written(tmp_path / "a.parquet", [("ben", "17"), (None, "17"), ("", "17"), (None, None)])
    assert drop_from_file(path, forgotten(visit_digest("17", MONDAY)), [day]) == gone
    assert len(left(path)) == 4 - gone


def test_a_large_file_is_read_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[tuple[str | None, str | None]] = [(f"u{n}", f"s{n}") for n in range(200_000)]
    path = written(tmp_path / "a.parquet", rows)
    for name in ("read_table", "read_pandas"):
        monkeypatch.setattr(pq, name, lambda *_, **__: pytest.fail("the whole file was read"))
    assert drop_from_file(path, forgotten(user_digest("u7"), user_digest("u199999")), [MONDAY]) == 2
    monkeypatch.undo()
    assert left(path) == [row for row in rows if row[0] not in ("u7", "u199999")]


@pytest.mark.parametrize("body", [b"", b"PAR1 damaged", b"PAR1" + b"x" * 100 + b"\x10\x00\x00\x00PAR1"])
def test_what_is_no_parquet_is_damaged(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(body)
    with pytest.raises(DamagedFileError, match="cannot be read"):
        drop_from_file(path, forgotten(user_digest("anna")), [MONDAY])


@pytest.mark.parametrize(
    "fault", [OSError(errno.EIO, "Input/output error"), pa.ArrowMemoryError("malloc failed")]
)
def test_a_disk_or_a_memory_that_fails_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    path = written(tmp_path / "a.parquet", [("anna", "1")])

    def fails(*_: Any, **__: Any) -> None:
        raise fault

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", fails)
    with pytest.raises(type(fault)) as raised:
        drop_from_file(path, forgotten(user_digest("anna")), [MONDAY])
    assert raised.value is fault and not isinstance(raised.value, DamagedFileError)


def test_what_was_read_is_told_by_day_once_the_days_are_known() -> None:
    request = Request.model_validate({"at": "2011-08-03T00:00:00Z", "ids": [user_digest("anna")]})
    for looked, days, expected in ((False, [], True), (True, [], False), (True, [TUESDAY], True), (True, [MONDAY], False)):  # fmt: skip
        asked = request.model_copy(update={"looked": looked, "days": tuple(days)})
        known = Forgotten((asked,), frozenset(asked.ids), "x")
        assert known.was_read([], [TUESDAY]) is expected
        assert known.was_read([asked.mark], [TUESDAY]) is False
