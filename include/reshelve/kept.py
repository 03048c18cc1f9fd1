"""Folders of copies that are kept for nights under way, each under the digest of what is in it."""

from __future__ import annotations

import contextlib
import shutil
import time
from pathlib import Path

UNUSED_DAYS = 7
"""A night ends within a day; a task of it that is cleared later finds its copies for so long."""


def forget_unused(folder: Path) -> None:
    """Delete the copies that nothing has used for days: who uses one sets its time of modification."""
    oldest = time.time() - UNUSED_DAYS * 86_400
    for copy in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another night renames or deletes it meanwhile
            if not copy.exists():  # the name of a copy that is gone
                copy.unlink(missing_ok=True)
            elif copy.is_dir() and not copy.is_symlink() and copy.stat().st_mtime < oldest:
                shutil.rmtree(copy, ignore_errors=True)
