"""Files appear whole or not at all, and are locked against other processes."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import stat
from pathlib import Path

import pytest

from reshelve.files import (
    digest_of_file,
    keep_from_others,
    open_to_others,
    take_lock,
    whole,
    write_private,
    write_whole,
)


@pytest.mark.parametrize("durable", [False, True])
def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / ".state.json"
    write_whole(path, "old", durable=durable)
    with pytest.raises(ZeroDivisionError), whole(path, durable=durable) as partial:
        partial.write_text("ne")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    write_whole(path, b"new", durable=durable)
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == [".state.json"]


def test_a_private_file_is_its_owners_also_where_it_was_not(tmp_path: Path) -> None:
    path = tmp_path / "kept" / "secret"
    write_private(path, "one")
    path.chmod(0o644)
    write_private(path, "two")
    assert path.read_text() == "two" and path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("mode", "closed"),
    [(0o755, 0o700), (0o777, 0o700), (0o1777, 0o1777), (0o700, 0o700)],
    ids=["open", "wide open", "everybody's, as /tmp", "closed"],
)
def test_a_home_is_closed_unless_it_is_everybodys(tmp_path: Path, mode: int, closed: int) -> None:
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(mode)
    before = os.umask(0o022)
    try:
        keep_from_others(home)
        (home / "file").touch()
    finally:
        os.umask(before)
    assert stat.S_IMODE(home.stat().st_mode) == closed
    assert (home / "file").stat().st_mode & 0o777 == 0o600


def test_what_is_opened_is_opened_whole_and_no_link_is_followed(tmp_path: Path) -> None:
    (outside := tmp_path / "outside").touch(mode=0o600)
    inner = tmp_path / "version" / "variables"
    inner.mkdir(parents=True, mode=0o700)
    (inner / "weights").touch(mode=0o600)
    (inner / "link").symlink_to(outside)
    (tmp_path / "version").chmod(0o700)
    open_to_others(tmp_path / "version")
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "version", inner, inner / "weights", outside)] == [
        0o755, 0o755, 0o644, 0o600,
    ]  # fmt: skip


def test_a_files_digest_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 300_000)
    assert digest_of_file(tmp_path / "a") == hashlib.sha256(b"x" * 300_000).hexdigest()


def _hold(path: Path, ready: int, until: int) -> None:
    with path.open("w") as handle:
        assert take_lock(handle)
        os.write(ready, b"1")
        os.read(until, 1)


def test_a_lock_is_waited_for_until_its_holder_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    (ready, say_ready), (until, say_until) = os.pipe(), os.pipe()
    holder = multiprocessing.get_context("fork").Process(target=_hold, args=(path, say_ready, until))
    holder.start()
    os.read(ready, 1)
    with path.open("w") as handle:
        assert not take_lock(handle)
        assert not take_lock(handle, wait_seconds=0.05)
        os.write(say_until, b"1")
        assert take_lock(handle, wait_seconds=60)
    holder.join()
    assert holder.exitcode == 0
