"""What the pages read: one reader per process."""

from __future__ import annotations

from functools import lru_cache

from reshelve.console.release_reader import ReleaseReader


@lru_cache(maxsize=1)
def board() -> ReleaseReader:
    """This process's reader, with its memory; it gives up after seconds where the object store is away."""
    from reshelve.store.objects import impatient_store

    return ReleaseReader(impatient_store())
