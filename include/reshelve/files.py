"""Files of this machine: written whole or not at all, told apart by their digest, locked against other processes."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_LOCK_EVERY_SECONDS = 0.1


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
