"""Files become objects once, in parts, and never whole in memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.measured import peak_megabytes
from tests.misbehaving import Fault, Misbehaving, Request, loses_answers, says

from reshelve.errors import TryAgainError
from reshelve.store import conditions, new_files
from reshelve.store.new_files import put_new_file
from reshelve.store.objects import ObjectStore, PreconditionFailedError

MIB = 1024 * 1024
KEY = "clickstream/shop/dt=2011-08-01/part-0.parquet"


def completes(request: Request) -> bool:
    """The parts of an upload are put together."""
    return request.method == "POST" and "uploadId" in request.query


def sends_a_part(request: Request) -> bool:
    return request.method == "PUT" and "partNumber" in request.query


def does_not_mind() -> Fault:
    """The store takes the condition where parts are put together, and does not look at it."""
    return Fault(completes, lambda request, forward: forward(request.without("if-none-match")))


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(new_files, "PART_BYTES", 5 * MIB)
    monkeypatch.setattr(conditions, "_of_parts", {})


@pytest.fixture
def day(tmp_path: Path) -> Path:
    """Two parts and a bit."""
    path = tmp_path / "part.parquet"
    path.write_bytes(os.urandom(11 * MIB))
    return path


def held(store: ObjectStore, key: str = KEY) -> bytes:
    found = store.get(key)
    assert found is not None
    return found.body


def unfinished(store: ObjectStore) -> list[Any]:
    return store.client.list_multipart_uploads(Bucket=store.bucket).get("Uploads", [])


def test_a_large_file_goes_in_parts_and_once(
    unruly: Misbehaving, through: ObjectStore, store: ObjectStore, day: Path, tmp_path: Path
) -> None:
    etag = put_new_file(through, day, KEY)
    sent = [len(request.body) for request in unruly.asked if sends_a_part(request) and KEY in request.key]
    assert len(sent) == 3 and max(sent) < 5.1 * MIB
    assert store.etag(KEY) == etag and held(store) == day.read_bytes()
    other = tmp_path / "other"
    other.write_bytes(os.urandom(6 * MIB))
    with pytest.raises(PreconditionFailedError):
        put_new_file(through, other, KEY)
    assert held(store) == day.read_bytes() and unfinished(store) == []
    assert [key for key, _ in store.list("")] == [KEY]


def test_a_small_file_goes_whole(
    unruly: Misbehaving, through: ObjectStore, store: ObjectStore, tmp_path: Path
) -> None:
    (tmp_path / "small").write_bytes(b"few rows")
    put_new_file(through, tmp_path / "small", KEY)
    assert held(store) == b"few rows" and not any(map(sends_a_part, unruly.asked))
    with pytest.raises(PreconditionFailedError):
        put_new_file(through, tmp_path / "small", KEY)


@pytest.mark.parametrize(
    "fault",
    [does_not_mind, lambda: says(501, "NotImplemented", lambda r: completes(r) and r.has("if-none-match"))],
    ids=["ignores it", "refuses it"],
)
def test_a_store_without_the_condition_for_parts_gets_it_in_one_piece(
    unruly: Misbehaving, through: ObjectStore, store: ObjectStore, day: Path, fault: Callable[[], Fault]
) -> None:
    unruly.add(fault())
    put_new_file(through, day, KEY)
    assert held(store) == day.read_bytes()
    day.write_bytes(b"1" * 6 * MIB)
    with pytest.raises(PreconditionFailedError):
        put_new_file(through, day, KEY)
    assert held(store) != day.read_bytes() and unfinished(store) == []
    assert [key for key, _ in store.list("")] == [KEY]


def test_an_upload_whose_answer_was_lost_is_known_again(
    unruly: Misbehaving, through: ObjectStore, store: ObjectStore, day: Path
) -> None:
    lost = unruly.add(loses_answers(lambda request: completes(request) and KEY in request.key))
    etag = put_new_file(through, day, KEY)
    assert lost.seen == 1 and store.etag(KEY) == etag and held(store) == day.read_bytes()


def test_a_store_that_is_busy_is_tried_again_later_and_keeps_no_parts(
    unruly: Misbehaving, through: ObjectStore, store: ObjectStore, day: Path
) -> None:
    unruly.add(
        says(409, "ConditionalRequestConflict", lambda request: completes(request) and KEY in request.key)
    )
    with pytest.raises(TryAgainError):
        put_new_file(through, day, KEY)
    assert not store.exists(KEY) and unfinished(store) == []


SENT = """
from pathlib import Path
from reshelve.store.new_files import put_new_file
from reshelve.store.objects import object_store
with open(path, "wb") as file:
    for number in range(megabytes):
        file.write(bytes([number]) * 1024 * 1024)
put_new_file(object_store(), Path(path), key)
"""


@pytest.mark.slow
def test_a_day_is_never_whole_in_memory(store: ObjectStore, tmp_path: Path) -> None:
    small, large = (
        peak_megabytes(SENT, path=str(tmp_path / "day"), key=f"a/b/{size}", megabytes=size)
        for size in (20, 160)
    )
    assert large - small < 60, "the whole file would be 140 MB more"
    assert dict(store.list("a/b/")) == {"a/b/160": 160 * MIB, "a/b/20": 20 * MIB}
