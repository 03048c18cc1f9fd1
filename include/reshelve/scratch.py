"""Temporary directories of the work on people's rows: all in one place, and each held by whoever works in it.

The kernel lets a dead process's hold go, so what it left is told from what is in use, and deleted: rows may lie in it
as they came, without masks and pseudonyms.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from reshelve.files import take_lock
from reshelve.settings import settings

_HELD = ".held"
_NEW_SECONDS = 10  # the file is made before it is locked


@contextmanager
def scratch(done: str) -> Iterator[Path]:
    """A directory for what is `done`, `work/<done>-…` below the home; gone when the block ends.

    `done` is a name of `personal_data.SCRATCH_OF`: every place where rows of people lie is in the list of those.
    """
    work = settings().work
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=work, prefix=f"{done}-") as made:
        directory = Path(made)
        with (directory / _HELD).open("w") as handle:
            take_lock(handle)
            yield directory


def abandoned(done: str) -> list[Path]:
    """The directories of `scratch(done)` on this machine whose process is gone."""
    return sorted(path for path in settings().work.glob(f"{done}-*") if path.is_dir() and _is_left(path))


def _is_left(directory: Path) -> bool:
    held = directory / _HELD
    with suppress(FileNotFoundError):  # it ended meanwhile
        if time.time() - held.stat().st_mtime > _NEW_SECONDS:
            with held.open() as handle:
                return take_lock(handle)
    return False
