"""Files of this machine: written whole or not at all, told apart by their digest, locked against other processes."""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_LOCK_EVERY_SECONDS = 0.1
OTHERS = 0o077
"""The umask of every process of ours: what it writes is its owner's alone."""


def keep_from_others(home: Path) -> None:
    """From now on what this process and its children write is its owner's alone; and so is `home`, where it is ours.

    What was written below an open `home` before is closed by that too. A `home` that belongs to another user, or that
    everybody shares (/tmp), stays as it is.
    """
    os.umask(OTHERS)
    if not home.is_dir():
        return  # made with that umask
    found = home.stat()
    if found.st_uid == os.geteuid() and found.st_mode & OTHERS and not found.st_mode & stat.S_ISVTX:
        home.chmod(0o700)


def open_to_others(path: Path, *, below: bool = True) -> None:
    """Let every user of this host read `path`, and all `below` it where it is a directory.

    For what another user's process has to read: a model server that runs as its own user, a service that verifies
    signatures. A file that belongs to somebody else stays as it is.
    """
    for found in (path, *path.rglob("*")) if below and path.is_dir() else (path,):
        if not found.is_symlink() and found.stat().st_uid == os.geteuid():
            mode = 0o755 if found.is_dir() else 0o644
            if (
                stat.S_IMODE(found.stat().st_mode) != mode
            ):  # a mode that is set again is a change to whoever watches
                found.chmod(mode)


def partial_of(path: Path) -> Path:
    """Where a file is written until it is whole: hidden, beside its place."""
    return path.with_name(f".{path.name.lstrip('.')}.partial")


@contextmanager
def whole(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """The path to write to in place of `path`, which appears when the block is done, and stays as it was where it fails.

    `durable`: a host that dies must not leave a name without its bytes.
    """
    partial = partial_of(path)
    try:
        yield partial
        if durable:
            with partial.open("rb") as written:
                os.fsync(written.fileno())
        partial.rename(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_whole(path: Path, body: str | bytes, *, durable: bool = False) -> None:
    """Replace a file at once: a reader sees the old or the new, and nothing between."""
    with whole(path, durable=durable) as partial:
        partial.write_bytes(body.encode() if isinstance(body, str) else body)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as partial:
        partial.unlink(missing_ok=True)
        partial.touch(mode=0o600)
        partial.write_text(text)


def digest_of_file(path: Path) -> str:
    """sha256 of its bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def take_lock(handle: IO[str], wait_seconds: float = 0.0) -> bool:
    """Lock an open file against every other process, or say that another held it for all of `wait_seconds`.

    The kernel lets it go when the file is closed, and so when the process dies.
    """
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(min(_LOCK_EVERY_SECONDS, wait_seconds))
